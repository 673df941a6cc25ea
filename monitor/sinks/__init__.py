"""Where messages of the outbox go. A new sink is one file here and one line in ``SINKS``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SINKS: Final[Mapping[str, str]] = {
    "files": "FileSink",
    "kafka": "KafkaSink",
    "memory": "MemorySink",
}
"""Module in this folder -> the class in it that implements ``monitor.sinks.protocol.Sink``."""
