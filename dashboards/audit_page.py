"""``/audit``: who did what, for admins."""

from __future__ import annotations

import json
from typing import Final

from fastapi import APIRouter, Request, Response

from dashboards.page_data import PageData
from dashboards.render import page
from monitor.windows import to_text

SHOWN: Final = 200


def audit_router(data: PageData) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/audit")
    def audit(request: Request, what: str = "") -> Response:
        lines = data.store.read_audit(what=what or None, limit=SHOWN)
        rows = [
            {**one._asdict(), "at": to_text(one.at_us), "detail": json.dumps(dict(one.detail), ensure_ascii=False)}
            for one in reversed(lines)
        ]
        return page(request, "audit.html", rows=rows, what=what, most=SHOWN)

    return router
