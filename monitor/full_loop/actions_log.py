"""What segwatch asks of others, as the trainer and the inference service hear of it: lines of ``actions.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class ActionsLog:
    """Actions by type, the first of each id: one that comes again is the same."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What those of ``segwatch.KIND_requested.v1`` say, in the order in which they came."""
        if not self._file.exists():
            return []
        found: dict[str, dict[str, Any]] = {}
        for line in self._file.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            if one["type"] == f"segwatch.{kind}_requested.v1":
                found.setdefault(one["id"], one["data"])
        return list(found.values())
