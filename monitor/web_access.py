"""Who may reach the web server: only this machine, unless there is a token."""

from __future__ import annotations

import ipaddress

from monitor.errors import SettingsError
from monitor.settings import WebSettings


def is_loopback(host: str) -> bool:
    """Whether an address or name can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("localhost")
    (True, True, False, True)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_access(web: WebSettings) -> None:
    """Raises SettingsError where the server would be open to others without a token."""
    if not is_loopback(web.host) and not web.token:
        raise SettingsError(
            f"web.host: {web.host!r} can be reached from other machines; set web.token"
            " (SEGWATCH_WEB_TOKEN or SEGWATCH_WEB_TOKEN_FILE), or use 127.0.0.1"
        )
