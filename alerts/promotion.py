"""The request to promote a canary, as an action."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from alerts.actions import NAMESPACE, PROMOTE_REQUESTED, Action
from alerts.rollback import compared


def promote_requested(comparison: Mapping[str, Any], page_url: str) -> Action:
    """The request, once for each canary and the version that it is to replace; ``comparison`` as of
    `alerts.rollback.rollback_requested`, with ``promotion`` in place of ``request``.
    """
    model, stable, canary = (comparison[name] for name in ("model", "stable", "canary"))
    sequential = comparison["sequential"]
    return Action(
        id=str(uuid.uuid5(NAMESPACE, "\n".join(("promote", model, stable, canary)))),
        type=PROMOTE_REQUESTED,
        subject=f"{model}/{canary}",
        data={
            "kind": "canary",
            "model": {"name": model, "version": canary},
            "stable": stable,
            "reasons": comparison["reasons"],
            "request": comparison["promotion"],
            "evidence": {
                **compared(comparison),
                "sequential": sequential["kept"],
                "thresholds": {"sequential": sequential["kept_enough"]},
            },
            "link": page_url,
        },
    )
