"""What a kept image is called: ``2026-11-23/<model>/<version>/<draw>-<input>.jpg``.

Everything but the day is a hash, so that nothing that a record says ever reaches a file system. The day (of the event,
UTC) stands first, for then expiry is a matter of whole folders. The draw is the record's own chance to be chosen as a
uniform spot check: in the order of their names the first k images of a folder are a uniform sample of its records, and
the one that spot checks take theirs from.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from monitor.draws import draw

DIGEST = 32
"""Hexadecimal digits: 128 bits, with which no two inputs share a name."""
SUFFIXES = {"jpeg": "jpg", "webp": "webp"}
MEDIA_TYPES = {"jpg": "image/jpeg", "webp": "image/webp"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_NAME = re.compile(rf"({DAY})/([0-9a-f]{{16}})/([0-9a-f]{{16}})/([0-9a-f]{{16}})-([0-9a-f]{{{DIGEST}}})\.(jpg|webp)")


class ImageName(NamedTuple):
    """The parts of a name; in their order names sort as in a listing."""

    day: str
    model: str
    version: str
    draw: str
    input: str
    suffix: str

    def __str__(self) -> str:
        return f"{self.day}/{self.model}/{self.version}/{self.draw}-{self.input}.{self.suffix}"

    @property
    def folder(self) -> str:
        """Of a day and model version."""
        return f"{self.day}/{self.model}/{self.version}"

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.suffix]

    @classmethod
    def parse(cls, text: str) -> ImageName | None:
        """The name that ``text`` is, None where it is none.

        >>> ImageName.parse("../../etc/passwd") is None
        True
        """
        found = _NAME.fullmatch(text)
        return cls(*found.groups()) if found else None


def name_of(model: str, version: str, input_id: str, event_time_us: int, form: str = "jpeg") -> ImageName:
    """The name of a record's image; ``form`` as ``samples.format``.

    >>> str(name_of("street", "3", "../cam7-1", 1_795_395_600_000_000))[:11]
    '2026-11-23/'
    """
    chance = min(int(draw("uniform", model, version, input_id) * 2.0**64), 2**64 - 1)
    parts = day_of(event_time_us), digest(model)[:16], digest(version)[:16], f"{chance:016x}", input_digest(input_id)
    return ImageName(*parts, SUFFIXES[form])


def day_of(event_time_us: int) -> str:
    """The day, in UTC, of a time in microseconds."""
    return (EPOCH + timedelta(microseconds=event_time_us)).strftime("%Y-%m-%d")


def input_digest(input_id: str) -> str:
    """How an input shows in names."""
    return digest(input_id)[:DIGEST]


def digest(text: str) -> str:
    """Hex SHA-256 of a name from a record."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
