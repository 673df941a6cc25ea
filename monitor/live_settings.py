"""Settings that can be read again while the service runs, all or nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from monitor.settings import SECTIONS, Settings

LIVE: Final = frozenset(
    {
        "log.level",
        "log.format",
        "web.token",
        "web.tokens_file",
        "web.session_key",
        "web.session_hours",
        "web.proxy_user_header",
        "web.proxy_roles_header",
        "web.trusted_proxies",
        "web.failed_sign_ins_per_minute",
        "web.writes_per_minute",
        "web.refresh_seconds",
        "web.max_series",
        "annotation.cvat_secret",
        "annotation.labelstudio_secret",
    }
)
"""Settings that take effect on reload; the others need a restart."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Names of settings whose value has changed. ``restart_needed``: those of them that still have the old effect."""

    changed: tuple[str, ...]
    restart_needed: tuple[str, ...]


class LiveSettings:
    """Holds the last good settings. Thread-safe.

    ``load`` reads and checks new ones (it raises SettingsError for bad ones); each of ``appliers`` is then called with
    them. An applier must not fail on settings that ``load`` let through.
    """

    def __init__(
        self,
        first: Settings,
        load: Callable[[], Settings],
        appliers: Sequence[Callable[[Settings], None]] = (),
        *,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._started = first
        self._current = first
        self._load = load
        self._appliers = appliers
        self._lock = threading.Lock()
        self._wall_us = wall_us
        self.loaded_us = wall_us()
        """When settings were last read with success."""
        self.failed = False
        """Whether the last reload failed, so that what runs is not what is written."""

    @property
    def current(self) -> Settings:
        """The last good settings."""
        return self._current

    def reload(self, check: Callable[[Settings], None] = lambda _: None) -> Reloaded:
        """Read the settings again. Raises SettingsError, with nothing changed, where they are bad.

        ``check`` refuses settings that are sound in themselves, but not for this process, by raising SettingsError.
        """
        with self._lock:
            self.failed = True  # whatever goes wrong on the way
            new = self._load()
            check(new)
            changed = differing(self._current, new)
            self._current = new
            for apply in self._appliers:
                apply(new)
            self.failed, self.loaded_us = False, self._wall_us()
            restart = tuple(name for name in differing(self._started, new) if name not in LIVE)
            return Reloaded(changed, restart)


def differing(old: Settings, new: Settings) -> tuple[str, ...]:
    """Names of the settings in which two differ, in the order of the settings.

    >>> differing(Settings(), Settings(data_dir="elsewhere"))
    ('data_dir',)
    """
    names = ["data_dir"] if old.data_dir != new.data_dir else []
    for section, kind in SECTIONS.items():
        before, after = getattr(old, section), getattr(new, section)
        fields = [field.name for field in msgspec.structs.fields(kind)]
        names += [f"{section}.{name}" for name in fields if getattr(before, name) != getattr(after, name)]
    return tuple(names)
