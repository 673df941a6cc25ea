"""Where records come from. A new source is one file here and one line in ``SOURCES``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SOURCES: Final[Mapping[str, str]] = {
    "files": "FileSource",
    "kafka": "KafkaSource",
    "memory": "MemorySource",
}
"""Module in this folder -> the class in it that implements ``monitor.sources.protocol.Source``.

Names rather than classes, so that reading files does not load a Kafka client.
"""
