"""Signatures of webhooks, as the Standard Webhooks specification (1.0.0) has them.

The receiver computes HMAC-SHA256 over ``id.timestamp.body`` and compares; the timestamp, in it, keeps an old message
from being sent again. A secret is ``whsec_`` and base64, or any text, which is then its own bytes. While a secret is
being changed there are several, one a line, and as many signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The bytes of a secret.

    >>> key_of("whsec_c2VjcmV0"), key_of("secret")
    (b'secret', b'secret')
    """
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signature(secret: str, identity: str, timestamp_s: int, body: bytes) -> str:
    """``v1,`` and the signature in base64.

    >>> signature("whsec_c2VjcmV0", "msg_1", 1674087231, b"{}")
    'v1,299AHAFlDdA/rU0aTOq+IJEc1vm5uzOXtMuTIv0RYbo='
    """
    signed = f"{identity}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, hashlib.sha256)).decode()


def headers(secrets: str, identity: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Headers of a signed webhook. ``secrets``: one a line."""
    signatures = [signature(one.strip(), identity, timestamp_s, body) for one in secrets.splitlines() if one.strip()]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }
