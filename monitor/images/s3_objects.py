"""Images as objects in S3, or in what speaks like it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from monitor.images.names import DAY, ImageName
from monitor.images.protocol import ImageStoreError
from monitor.s3 import open_bucket, without_secrets
from monitor.settings import S3Settings

AT_ONCE = 500
_DAY = re.compile(DAY)


class S3Images:
    """Implements ``monitor.images.protocol.ImageStore``. An object is there whole or not at all by itself."""

    def __init__(self, bucket: str, folder: str, settings: S3Settings) -> None:
        import obstore

        self._api = obstore
        self._folder = folder.strip("/")
        self._where = f"s3://{bucket}/{self._folder}"
        self._store = open_bucket(bucket, settings)

    def describe(self) -> str:
        return self._where

    def put(self, name: ImageName, data: bytes) -> bool:
        try:
            self._api.put(
                self._store, self._key(name), data, mode="create", attributes={"Content-Type": name.media_type}
            )
        except self._api.exceptions.AlreadyExistsError:
            return False
        except Exception as error:
            raise self._failed(error) from None
        return True

    def get(self, name: ImageName) -> bytes | None:
        try:
            return bytes(self._api.get(self._store, self._key(name)).bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed(error) from None

    def has(self, name: ImageName) -> bool:
        try:
            self._api.head(self._store, self._key(name))
        except FileNotFoundError:
            return False
        except Exception as error:
            raise self._failed(error) from None
        return True

    def delete(self, names: Iterable[ImageName]) -> int:
        """All of ``names`` count: S3 does not say which were there, and callers have them from a listing."""
        keys = [self._key(name) for name in names]
        try:
            for start in range(0, len(keys), AT_ONCE):
                self._api.delete(self._store, keys[start : start + AT_ONCE])
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._failed(error) from None
        return len(keys)

    def days(self) -> list[str]:
        try:
            found = self._api.list_with_delimiter(self._store, self._folder or None)["common_prefixes"]
        except Exception as error:
            raise self._failed(error) from None
        last = [prefix.rstrip("/").rpartition("/")[2] for prefix in found]
        return sorted(day for day in last if _DAY.fullmatch(day))

    def names(self, day: str) -> Iterator[ImageName]:
        prefix = f"{self._folder}/{day}" if self._folder else day
        start = len(self._folder) + 1 if self._folder else 0
        try:
            for some in self._api.list(self._store, prefix):
                for one in some:
                    name = ImageName.parse(one["path"][start:])
                    if name is not None:
                        yield name
        except Exception as error:
            raise self._failed(error) from None

    def _key(self, name: ImageName) -> str:
        text = str(name)
        if ImageName.parse(text) != name:
            raise ValueError(f"not the name of an image: {text!r}")
        return f"{self._folder}/{text}" if self._folder else text

    def _failed(self, error: Exception) -> ImageStoreError:
        return ImageStoreError(f"{self._where}: {without_secrets(error)}")
