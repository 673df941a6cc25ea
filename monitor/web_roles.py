"""What people and programs may do: four roles, each of which may do all that those before it may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["viewer", "labeller", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From the least to the most. ``viewer`` reads; ``labeller`` also works on the relabel queue; ``operator`` also runs
the service (reload, webhooks, actions); ``admin`` also reads the audit log."""
Way = Literal["open", "token", "session", "proxy"]
"""How somebody is known: not at all (loopback without sign-in), by a bearer token, by a page's cookie, by a proxy."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
READS: Final[tuple[tuple[str, Role], ...]] = (("/audit", "admin"), ("/api/v1/audit", "admin"))
WRITES: Final[tuple[tuple[str, Role], ...]] = (
    ("/sign-out", "viewer"),
    ("/api/v1/canary/gate", "viewer"),  # a question in the form of a POST
    ("/api/v1/relabel", "labeller"),
    ("/relabel", "labeller"),
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. ``name`` is "" where nobody had to say. ``csrf`` proves that a form came from a page of theirs."""

    name: str
    role: Role
    way: Way
    csrf: str

    def may(self, role: Role) -> bool:
        """Whether the person's role is this one, or a higher one.

        >>> Person("maria", "labeller", "token", "").may("operator")
        False
        """
        return ROLES.index(self.role) >= ROLES.index(role)


def needed(method: str, path: str) -> Role:
    """The least role that may do this: what is not listed here is for operators if it writes, for all if it reads.

    >>> needed("GET", "/"), needed("POST", "/relabel/claim"), needed("POST", "/-/reload"), needed("GET", "/audit")
    ('viewer', 'labeller', 'operator', 'admin')
    """
    safe = method in SAFE_METHODS
    for prefix, role in READS if safe else WRITES:
        if path == prefix or path.startswith(f"{prefix}/"):
            return role
    return "viewer" if safe else "operator"
