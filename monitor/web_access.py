"""Who may reach the web server: only this machine, unless people and programs have to sign in."""

from __future__ import annotations

import ipaddress

from monitor.errors import SettingsError
from monitor.settings import WebSettings
from monitor.web_tokens import read_tokens


def is_loopback(host: str) -> bool:
    """Whether an address or name can be reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("localhost")
    (True, True, False, True)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def wants_sign_in(web: WebSettings) -> bool:
    """Whether everybody has to say who they are: as soon as there is any way to do so."""
    return bool(web.token or web.tokens_file or web.proxy_user_header)


def check_access(web: WebSettings) -> None:
    """Raises SettingsError where the server would be open to others, or a way to sign in could not work."""
    if web.proxy_user_header and not web.trusted_proxies:
        raise SettingsError("web.proxy_user_header: anybody could send it; set web.trusted_proxies")
    for one in web.trusted_proxies:
        try:
            ipaddress.ip_network(one, strict=False)
        except ValueError:
            raise SettingsError(f"web.trusted_proxies: {one!r} is neither an address nor a network") from None
    if web.tokens_file:
        read_tokens(web.tokens_file)
    if bool(web.tls_certificate) != bool(web.tls_key):
        raise SettingsError("web.tls_certificate, web.tls_key: both or neither")
    if not is_loopback(web.host) and not wants_sign_in(web):
        raise SettingsError(
            f"web.host: {web.host!r} can be reached from other machines; set web.token"
            " (SEGWATCH_WEB_TOKEN or SEGWATCH_WEB_TOKEN_FILE), or use 127.0.0.1"
        )
