"""The receivers' file: a list of receivers in YAML, read and checked as a whole."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union
from urllib.parse import urlsplit

import msgspec
import yaml

from monitor.errors import SettingsError
from monitor.receivers import PRESETS
from monitor.receivers.protocol import Receiver, ReceiverSettings


def load_receivers(path: str) -> tuple[ReceiverSettings, ...]:
    """The receivers of a file; none for "". Raises SettingsError that names file, entry and field."""
    if not path:
        return ()
    tree = _read(Path(path))
    found: list[ReceiverSettings] = []
    kinds: Any = Union[tuple(_settings_of(preset) for preset in PRESETS)]  # noqa: UP007
    for number, entry in enumerate(tree):
        where = f"{path}: receivers[{number}]"
        if not isinstance(entry, dict):
            raise SettingsError(f"{where}: expected a mapping, got {type(entry).__name__}")
        if entry.get("preset", "generic") not in PRESETS:
            raise SettingsError(f"{where}.preset: {entry['preset']!r} is none of {', '.join(PRESETS)}")
        try:
            one: ReceiverSettings = msgspec.convert({"preset": "generic", **entry}, kinds)
        except msgspec.ValidationError as error:
            what, _, field = str(error).partition(" - at `$.")
            raise SettingsError(f"{where}{'.' + field.rstrip('`') if field else ''}: {what}") from None
        _check_url(one.url, where)
        if one.name in {other.name for other in found}:
            raise SettingsError(f"{where}.name: {one.name!r} comes twice")
        found.append(one)
    return tuple(found)


def make_receiver(settings: ReceiverSettings) -> Receiver:
    """The receiver of some settings. Raises SettingsError where a secret is missing."""
    module = importlib.import_module(type(settings).__module__)
    receiver: Receiver = getattr(module, PRESETS[module.__name__.rpartition(".")[2]])(settings)
    return receiver


def _read(file: Path) -> Sequence[Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"actions.receivers_file: {file} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict) or set(tree) != {"receivers"} or not isinstance(tree["receivers"] or [], list):
        raise SettingsError(f"{file}: expected a list under receivers, and nothing else")
    return tree["receivers"] or []


def _settings_of(preset: str) -> type[ReceiverSettings]:
    kind: type[ReceiverSettings] = importlib.import_module(f"monitor.receivers.{preset}").Settings
    return kind


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{where}.url: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError(f"{where}.url: expected http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{where}.url: names no user or password: use a file")
    if parts.fragment or any(ord(one) <= 32 or ord(one) == 127 for one in url):
        raise SettingsError(f"{where}.url: has a part that no request can have")
