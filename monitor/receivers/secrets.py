"""Secrets of receivers: read anew for each use, so that a new one takes effect without a restart."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from monitor.errors import SettingsError
from monitor.receivers.protocol import ReceiverSettings


def secret(settings: ReceiverSettings, kind: str, environ: Mapping[str, str] | None = None) -> str:
    """What the file ``KIND_file`` holds, or the variable that ``KIND_env`` names; "" where neither is set.

    Raises SettingsError that names the receiver and the field, and never the secret.
    """
    file, variable = getattr(settings, f"{kind}_file"), getattr(settings, f"{kind}_env")
    if file and variable:
        raise SettingsError(f"receiver {settings.name}: {kind}_file and {kind}_env are both set")
    if file:
        try:
            value = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise SettingsError(f"receiver {settings.name}: {kind}_file {file}: {reason}") from None
        if not value:
            raise SettingsError(f"receiver {settings.name}: {kind}_file {file} is empty")
        return value
    if variable:
        value = (os.environ if environ is None else environ).get(variable, "").strip()
        if not value:
            raise SettingsError(f"receiver {settings.name}: the variable {variable} ({kind}_env) is not set")
        return value
    return ""


def bearer(settings: ReceiverSettings) -> dict[str, str]:
    """The header of the receiver's token; none where it has no token."""
    token = secret(settings, "token")
    return {"authorization": f"Bearer {token}"} if token else {}


def login(settings: ReceiverSettings) -> dict[str, str]:
    """The header of ``username`` and its password (HTTP's Basic); none where there is no name."""
    name = str(getattr(settings, "username", ""))
    password = secret(settings, "password") if hasattr(settings, "password_file") else ""
    if not name:
        return {}
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}
