"""Outbox messages as JSON Lines in the data folder: ``actions.jsonl`` and ``dead-letter.jsonl``.

An action is a CloudEvent in the JSON format (attributes beside ``data``). A dead letter is an object with its reason,
where it came from, its headers, and the original value as ``value`` where it is UTF-8 text, else as ``value_base64``.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from monitor.settings import KafkaSettings
from monitor.sinks.protocol import SinkError
from monitor.store.values import OutboxMessage

CE_PREFIX = "ce_"
OWN_PREFIX = "segwatch_"


class FileSink:
    """Implements ``monitor.sinks.protocol.Sink``; appends to files in ``directory``, synced to disk by ``flush``.

    One process at a time writes a file (a lock on it says so); raises SinkError for the second.
    """

    def __init__(self, directory: Path, topics: KafkaSettings) -> None:
        self._directory = directory
        self._dead_letter_topic = topics.dead_letter_topic
        self._names = {topics.actions_topic: "actions", topics.dead_letter_topic: "dead-letter"}
        self._files: dict[str, BinaryIO] = {}
        self._waiting: dict[str, list[bytes]] = {}

    def path_of(self, topic: str) -> Path:
        """The file that a topic's messages go to."""
        return self._directory / f"{self._names.get(topic, topic)}.jsonl"

    def add(self, message: OutboxMessage) -> None:
        """Keep the message's line until ``flush``."""
        to_object = _dead_letter if message.topic == self._dead_letter_topic else _event
        line = json.dumps(to_object(message), ensure_ascii=False, separators=(",", ":"))
        self._waiting.setdefault(message.topic, []).append(line.encode("utf-8") + b"\n")

    def flush(self) -> None:
        """Write and sync."""
        try:
            for topic, lines in self._waiting.items():
                if lines:
                    file = self._files.get(topic) or self._open(topic)
                    file.write(b"".join(lines))
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise SinkError(f"{self.path_of(topic)}: {error.strerror or error}") from None
        self._waiting.clear()

    def close(self) -> None:
        """Close the files and give up their locks."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._waiting.clear()

    def _open(self, topic: str) -> BinaryIO:
        path = self.path_of(topic)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise SinkError(f"{path}: another process writes it") from None
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                # A crash in the middle of a line: it must not swallow the next one.
                file.write(b"\n")
        self._files[topic] = file
        return file


def _event(message: OutboxMessage) -> dict[str, Any]:
    """A CloudEvent in the JSON format (CloudEvents 1.0, section 3.1), from its binary form."""
    attributes = {
        name.removeprefix(CE_PREFIX): value.decode("utf-8", "replace")
        for name, value in message.headers
        if name.startswith(CE_PREFIX)
    }
    event: dict[str, Any] = {"specversion": "1.0", **attributes, "id": attributes.get("id", message.id)}
    value = message.value or b""
    try:
        event["data"] = json.loads(value) if value else None
    except ValueError:
        event |= _text_or_base64("data", value)
    return event


def _dead_letter(message: OutboxMessage) -> dict[str, Any]:
    own = {
        name.removeprefix(OWN_PREFIX): value.decode("utf-8", "replace")
        for name, value in message.headers
        if name.startswith(OWN_PREFIX)
    }
    for name in ("partition", "offset"):
        if own.get(name, "").isdigit():
            own[name] = int(own[name])  # type: ignore[assignment]
    letter: dict[str, Any] = {"id": message.id, **own, "headers": _headers(message.headers)}
    if message.key is not None:
        letter |= _text_or_base64("key", message.key)
    if message.value is None:
        letter["value"] = None
    else:
        letter |= _text_or_base64("value", message.value)
    return letter


def _headers(headers: Sequence[tuple[str, bytes]]) -> list[list[str]]:
    """Pairs, not an object: a name may come twice. Bytes that are no text are shown as Latin-1."""
    shown = []
    for name, value in headers:
        if not name.startswith(OWN_PREFIX):
            try:
                shown.append([name, value.decode("utf-8")])
            except UnicodeDecodeError:
                shown.append([name, value.decode("latin-1")])
    return shown


def _text_or_base64(name: str, value: bytes) -> dict[str, str]:
    try:
        return {name: value.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode("ascii")}
