"""Who is told: each role's configurations, passed on to Alertmanager once they are known to hold no secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from alerts.slo.spec import SpecError

Tree = dict[str, Any]
Path = tuple[str | int, ...]

ROLES: Final[Mapping[str, str]] = {
    "ml_oncall": "pages of quality and drift",
    "sre": "pages of operations, and a copy of those of quality",
    "tickets": "everything that can wait until the morning",
    "actions": "alerts that ask for an action, for segwatch itself",
    "watchdog": "whoever notices that the heartbeat stops",
}
REQUIRED: Final = ("ml_oncall", "sre", "tickets")

TITLE: Final = '{{ template "segwatch.title" . }}'
TEXT: Final = '{{ template "segwatch.text" . }}'
LINK: Final = '{{ template "segwatch.link" . }}'

SECRETS: Final[Mapping[str, str]] = {
    "api_url": "api_url_file",
    "routing_key": "routing_key_file",
    "service_key": "service_key_file",
    "auth_password": "auth_password_file",
    "auth_secret": "auth_password_file",
    "password": "password_file",
    "credentials": "credentials_file",
    "bearer_token": "bearer_token_file",
    "client_secret": "client_secret_file",
}
"""What Alertmanager takes in clear text, and where it belongs instead."""

TLS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("ca_file", "cert_file", "key_file", "server_name", "min_version", "max_version"), str),
    "insecure_skip_verify": bool,
}
HTTP: Final[Mapping[str, Any]] = {
    "basic_auth": {"username": str, "password_file": str},
    "authorization": {"type": str, "credentials_file": str},
    "bearer_token_file": str,
    "oauth2": {
        "client_id": str,
        "client_secret_file": str,
        "scopes": list,
        "token_url": str,
        "endpoint_params": dict,
        "tls_config": TLS,
        "proxy_url": str,
    },
    "proxy_url": str,
    "follow_redirects": bool,
    "enable_http2": bool,
    "tls_config": TLS,
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of receiver: its fields (Alertmanager 0.25), those that it needs, and what segwatch has it say."""

    fields: Mapping[str, Any]
    needed: Sequence[str] = ()
    says: Mapping[str, Any] = field(default_factory=dict)


KINDS: Final[Mapping[str, Kind]] = {
    "webhook_configs": Kind({"url": str, "max_alerts": int, "http_config": HTTP}, ["url"]),
    "slack_configs": Kind(
        {
            **dict.fromkeys(("api_url_file", "channel", "username", "icon_emoji", "icon_url", "color"), str),
            "link_names": bool,
            "http_config": HTTP,
        },
        ["api_url_file", "channel"],
        {"title": TITLE, "title_link": LINK, "text": TEXT, "fallback": TITLE},
    ),
    "pagerduty_configs": Kind(
        {
            **dict.fromkeys(("routing_key_file", "service_key_file", "url", "class", "component", "group"), str),
            "severity": str,
            "http_config": HTTP,
        },
        [],
        {
            "description": TITLE,
            "client": "segwatch",
            "client_url": LINK,
            "severity": '{{ or .CommonLabels.severity "error" }}',
            "details": {"text": TEXT},
        },
    ),
    "email_configs": Kind(
        {
            **dict.fromkeys(("to", "from", "smarthost", "hello"), str),
            **dict.fromkeys(("auth_username", "auth_password_file", "auth_identity"), str),
            "require_tls": bool,
            "tls_config": TLS,
        },
        ["to", "from", "smarthost"],
        {"headers": {"Subject": TITLE}, "text": TEXT, "html": ""},
    ),
}
NAMES: Final[Mapping[type, str]] = {str: "a text", bool: "true or false", int: "a whole number", list: "a list"}


@dataclass(frozen=True, slots=True)
class Receivers:
    """``configs``: role -> kind -> configurations, as Alertmanager takes them; a role without any tells nobody."""

    configs: Mapping[str, Mapping[str, Sequence[Tree]]]

    def to_list(self) -> list[Tree]:
        return [
            {"name": role, **{kind: list(found) for kind, found in self.configs.get(role, {}).items()}}
            for role in ROLES
        ]

    def silent(self) -> list[str]:
        """Roles of which nobody is told."""
        return [role for role in ROLES if not self.configs.get(role)]


def defaults(pages: str) -> Receivers:
    """Actions go to segwatch; pages and tickets are on Alertmanager's own page alone."""
    return Receivers({"actions": {"webhook_configs": [{"url": f"{pages.rstrip('/')}/webhooks/alertmanager"}]}})


def parse_receivers(tree: Any, pages: str) -> Receivers:
    """Receivers by role. Raises SpecError for an unknown role or field, a secret in clear text, a missing role."""
    for role in _mapping(tree, ()):
        if role not in ROLES:
            raise SpecError((role,), f"no such role; there are {', '.join(ROLES)}")
    for role in REQUIRED:
        if role not in tree:
            raise SpecError((), f"{role} is missing ({ROLES[role]}); `{role}: {{}}` tells nobody")
    found = {role: _role(configs, (role,)) for role, configs in tree.items()}
    return Receivers({**defaults(pages).configs, **found})


def _role(tree: Any, path: Path) -> dict[str, list[Tree]]:
    found = {}
    for kind, configs in _mapping(tree, path).items():
        if kind not in KINDS:
            raise SpecError((*path, kind), f"no such kind of receiver; there are {', '.join(KINDS)}")
        if not isinstance(configs, list) or not configs:
            raise SpecError((*path, kind), "expected a list of configurations")
        found[kind] = [_config(one, kind, (*path, kind, index)) for index, one in enumerate(configs)]
    return found


def _config(tree: Any, name: str, path: Path) -> Tree:
    kind = KINDS[name]
    fields = {"send_resolved": bool, **kind.fields}
    _check(tree, fields, path)
    for needed in kind.needed:
        if needed not in tree:
            raise SpecError(path, f"{needed} is missing")
    if name == "pagerduty_configs" and ("routing_key_file" in tree) == ("service_key_file" in tree):
        raise SpecError(path, "one of routing_key_file and service_key_file is needed")
    # Slack and e-mail say nothing of a resolved alert unless asked; a page that is over is worth a line.
    return {**kind.says, "send_resolved": True, **tree}


def _check(tree: Any, fields: Mapping[str, Any], path: Path) -> None:
    for name, value in _mapping(tree, path).items():
        here = (*path, name)
        if name in SECRETS and name not in fields:
            raise SpecError(here, f"secrets come from files alone: {SECRETS[name]}")
        if name not in fields:
            raise SpecError(here, f"no such field; there are {', '.join(fields)}")
        wanted = fields[name]
        if isinstance(wanted, Mapping):
            _check(value, wanted, here)
        elif wanted is dict:
            _mapping(value, here)
        elif not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise SpecError(here, f"expected {NAMES[wanted]}, got {value!r}")
        elif name.endswith("url"):
            _check_url(value, here)


def _check_url(value: str, path: Path) -> None:
    try:
        parts = urlsplit(value)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise SpecError(path, f"expected an http or https address, got {value!r}")
    if parts.username is not None or parts.password is not None:
        raise SpecError(path, "secrets come from files alone: http_config.basic_auth.password_file")


def _mapping(tree: Any, path: Path) -> Tree:
    if not isinstance(tree, dict):
        raise SpecError(path, f"expected fields, got {tree!r}")
    return tree
