"""Tokens by name and role, from a YAML file (``web.tokens_file``)::

    maria:   {role: labeller, token_sha256: 2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683}
    scraper: {role: viewer, token_file: /run/secrets/scraper}

``token_sha256`` is what ``printf %s "$token" | sha256sum`` prints: long random tokens need no slower hash.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from monitor.errors import SettingsError
from monitor.settings import WebSettings
from monitor.web_roles import ROLES, Role

log = logging.getLogger(__name__)

PLAIN: Final = "token"
"""Name of whoever has the one token of ``web.token``."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class Token(NamedTuple):
    """A token by its SHA-256, in hex."""

    name: str
    role: Role
    digest: str


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def owner_of(token: str, known: Iterable[Token]) -> Token | None:
    """Whose token this is. All are compared, so that time tells nothing of which is nearly right."""
    digest, found = digest_of(token), None
    for one in known:
        if hmac.compare_digest(digest, one.digest):
            found = one
    return found


def read_tokens(file: str) -> tuple[Token, ...]:
    """The tokens of a file. Raises SettingsError that names the entry."""
    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"web.tokens_file: {file}: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"web.tokens_file: {file}: expected a mapping of names")
    return tuple(_token(file, str(name), entry) for name, entry in tree.items())


def _token(file: str, name: str, entry: object) -> Token:
    where = f"web.tokens_file: {file}: {name}"
    if not name.isprintable() or not 0 < len(name) <= 100 or name == PLAIN:
        raise SettingsError(f"{where}: expected a name of 1 to 100 letters other than {PLAIN!r}")
    if not isinstance(entry, dict) or set(entry) not in ({"role", "token_sha256"}, {"role", "token_file"}):
        raise SettingsError(f"{where}: expected role, and token_sha256 or token_file")
    role = next((one for one in ROLES if one == entry["role"]), None)
    if role is None:
        raise SettingsError(f"{where}: role is none of {', '.join(ROLES)}")
    if "token_file" in entry:
        try:
            text = Path(str(entry["token_file"])).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{where}: token_file: {error}") from None
        if not text:
            raise SettingsError(f"{where}: token_file is empty")
        return Token(name, role, digest_of(text))
    digest = str(entry["token_sha256"]).lower()
    if not _DIGEST.fullmatch(digest):
        raise SettingsError(f"{where}: token_sha256: expected 64 hexadecimal digits")
    return Token(name, role, digest)


class Tokens:
    """The tokens in force, read again when their file changes; a file gone bad leaves those of before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: tuple[str, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def of(self, web: WebSettings) -> tuple[Token, ...]:
        plain = (Token(PLAIN, "admin", digest_of(web.token)),) if web.token else ()
        return (*plain, *self._of_file(web.tokens_file)) if web.tokens_file else plain

    def _of_file(self, file: str) -> tuple[Token, ...]:
        with self._lock:
            try:
                state = os.stat(file)
                seen = (file, state.st_mtime_ns, state.st_size)
                if seen != self._seen:
                    self._tokens, self._seen = read_tokens(file), seen
            except (OSError, SettingsError) as error:
                if self._seen is None or self._seen[0] != file:
                    self._tokens = ()  # nobody, rather than those of another file
                    self._seen = (file, 0, 0)
                    log.error("nobody of web.tokens_file can sign in: %s", error)
            return self._tokens
