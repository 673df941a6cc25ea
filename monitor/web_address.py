"""Whose request it is, by address: that of the connection, or what a trusted proxy says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final

FORWARDED_FOR: Final = b"x-forwarded-for"
MOST_HOPS: Final = 20
KEY: Final = "segwatch.address"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(headers: Iterable[tuple[bytes, bytes]], peer: str, trusted: tuple[str, ...]) -> str:
    """The address that limits count by and the audit log names.

    Each proxy appends the address that it was asked from to ``X-Forwarded-For``, so that only what trusted ones have
    appended is known: from the end, the first address that is not a trusted proxy's. What stands before it anybody
    could have written.

    >>> sent = [(b"x-forwarded-for", b"10.9.9.9, 192.0.2.7, 10.0.0.2")]
    >>> client_address(sent, "10.0.0.1", ("10.0.0.0/8",)), client_address(sent, "198.51.100.1", ("10.0.0.0/8",))
    ('192.0.2.7', '198.51.100.1')
    """
    found = peer
    hops = ",".join(value.decode("latin-1") for name, value in headers if name == FORWARDED_FOR).split(",")
    for hop in reversed(hops[-MOST_HOPS:]):
        if not is_in(found, trusted):
            break
        address = _address(_without_port(hop.strip()))
        if address is None:
            break
        found = str(address)
    return found


def introduce(scope: Any, trusted: tuple[str, ...]) -> str:
    """Find the address out and remember it for `address_of`."""
    found = client_address(scope["headers"], peer_of(scope), trusted)
    scope[KEY] = found
    return found


def address_of(scope: Mapping[str, Any]) -> str:
    """Of any request that has come through the gate."""
    return str(scope[KEY])


def peer_of(scope: Mapping[str, Any]) -> str:
    """The other end of the connection; "" where that is a file."""
    return scope["client"][0] if scope.get("client") else ""


def is_in(peer: str, networks: tuple[str, ...]) -> bool:
    """
    >>> is_in("10.1.2.3", ("10.0.0.0/8",)), is_in("::ffff:10.1.2.3", ("10.0.0.0/8",)), is_in("testclient", ("::/0",))
    (True, True, False)
    """
    address = _address(peer)
    return address is not None and any(address in ipaddress.ip_network(one, strict=False) for one in networks)


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(hop: str) -> str:
    """Some proxies add the port.

    >>> _without_port("192.0.2.7:4711"), _without_port("[2001:db8::7]:4711"), _without_port("2001:db8::7")
    ('192.0.2.7', '2001:db8::7', '2001:db8::7')
    """
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
