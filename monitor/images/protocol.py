"""What a place for images can do. Names are `monitor.images.names.ImageName`; nothing else is ever asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from monitor.errors import SegwatchError
from monitor.images.names import ImageName


class ImageStoreError(SegwatchError):
    """The place of images does not answer, or refuses."""


class ImageStore(Protocol):
    """Safe for several threads. All methods raise ImageStoreError."""

    def put(self, name: ImageName, data: bytes) -> bool:
        """Store whole or not at all; False where there is one of that name already, which stays."""

    def get(self, name: ImageName) -> bytes | None:
        """None where there is none."""

    def has(self, name: ImageName) -> bool:
        """Whether there is one."""

    def delete(self, names: Iterable[ImageName]) -> int:
        """How many there were."""

    def days(self) -> list[str]:
        """Days of which there are images, the oldest first."""

    def names(self, day: str) -> Iterator[ImageName]:
        """All images of a day, in the order of their names."""

    def describe(self) -> str:
        """Where it is, without secrets."""
