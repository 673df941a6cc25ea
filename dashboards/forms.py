"""What a page's form sends: small, and proven to come from a page of ours."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import Depends, HTTPException, Request

from monitor.web_gate import person_of

MOST_BYTES: Final = 64 * 1024
MOST_FIELDS: Final = 200


async def read_form(request: Request) -> dict[str, str]:
    """Fields of an URL-encoded form; of several with one name the last. Raises HTTPException."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise HTTPException(415, "a form is wanted")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"more than {MOST_BYTES} bytes")
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise HTTPException(400, "not a form") from None


async def read_proven_form(request: Request) -> dict[str, str]:
    """The same, of a page that whoever asks was given. Raises HTTPException 403 where it is of another."""
    fields = await read_form(request)
    wanted = person_of(request.scope).csrf
    if not wanted or not hmac.compare_digest(fields.get("csrf", "").encode(), wanted.encode()):
        raise HTTPException(403, "this form was made for another session: load its page again")
    return fields


Form = Annotated[Mapping[str, str], Depends(read_form)]
ProvenForm = Annotated[Mapping[str, str], Depends(read_proven_form)]
