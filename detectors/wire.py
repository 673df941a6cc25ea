"""Writing and reading the detectors' binary forms: few lengths, all of them checked."""

from __future__ import annotations

import zlib


class Writer:
    """Collects numbers (LEB128, 7 bits a byte, lowest first) and bytes."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def number(self, value: int) -> None:
        if value < 0:
            raise ValueError(f"only numbers >= 0 can be written, got {value}")
        while value > 0x7F:
            self._parts.append(value & 0x7F | 0x80)
            value >>= 7
        self._parts.append(value)

    def raw(self, data: bytes) -> None:
        self._parts += data

    def block(self, data: bytes) -> None:
        """Bytes behind their length."""
        self.number(len(data))
        self.raw(data)

    def text(self, value: str) -> None:
        self.block(value.encode("utf-8", "surrogatepass"))

    def data(self) -> bytes:
        return bytes(self._parts)


class Reader:
    """Reads what `Writer` wrote, in which ``version`` of the format. ``what`` names it in errors, all ValueErrors."""

    def __init__(self, data: bytes, what: str, version: int = 1) -> None:
        self.what = what
        self.version = version
        self._data = data
        self._at = 0

    @classmethod
    def unpacked(
        cls, data: bytes, magic: bytes, version: int, what: str, limit: int, *, older: tuple[int, ...] = ()
    ) -> Reader:
        """A reader of packed content behind magic, format version (``version`` or one of ``older``) and its length.

        Raises:
            ValueError: another kind of data, a newer format, damage, or more than ``limit`` bytes of content.
        """
        if data[: len(magic)] != magic or len(data) <= len(magic):
            raise ValueError(f"not a {what}")
        if data[len(magic)] not in (version, *older):
            raise ValueError(f"{what} has format {data[len(magic)]}, this release reads format {version}")
        outer = cls(data, what)
        outer.raw(len(magic) + 1)
        length = outer.number()
        if length > limit:
            raise ValueError(f"damaged {what}: {length} bytes of content, at most {limit} are read")
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(data[outer._at :], length + 1)
        except zlib.error as error:
            raise ValueError(f"damaged {what}: {error}") from None
        if len(content) != length or not unpacker.eof or unpacker.unused_data:
            raise ValueError(f"damaged {what}: content is not {length} bytes long")
        return cls(content, what, data[len(magic)])

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.raw(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError(f"damaged {self.what}: a number of more than 63 bits")

    def raw(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError(f"damaged {self.what}: it ends early")
        self._at += size
        return self._data[self._at - size : self._at]

    @property
    def unread(self) -> tuple[bytes, int]:
        """All bytes, and the place of the next one: for what is read by compiled code, which then calls `skip`."""
        return self._data, self._at

    def skip(self, place: int) -> None:
        """Go on at ``place``."""
        self._at = place

    def text(self) -> str:
        try:
            return self.raw(self.number()).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise ValueError(f"damaged {self.what}: a name is not UTF-8") from None

    def rest(self) -> bytes:
        """All that has not been read yet."""
        return self.raw(len(self._data) - self._at)

    def end(self) -> None:
        """Raises ValueError where anything is left."""
        if self._at != len(self._data):
            raise ValueError(f"damaged {self.what}: {len(self._data) - self._at} bytes too many")
