"""JSON answers of the HTTP interface."""

from __future__ import annotations

import json

from starlette.responses import Response


def json_response(content: object, status: int = 200) -> Response:
    """``content`` as JSON; lone surrogates become question marks. Raises ValueError for NaN and infinity."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return Response(body, status, media_type="application/json")
