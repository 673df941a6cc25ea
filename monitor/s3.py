"""S3 through obstore (MIT), imported when it is first needed: the extra ``s3`` brings it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from monitor.errors import SettingsError
from monitor.settings import S3Settings, Settings

if TYPE_CHECKING:
    from obstore.store import S3Store

TIMEOUT_S = 10.0
RETRIES = 2
READ_BYTES = 1 << 16


def open_bucket(bucket: str, settings: S3Settings) -> S3Store:
    """A bucket; nothing is asked of it yet. Raises SettingsError where obstore is missing or refuses the settings."""
    try:
        from obstore.store import S3Store
    except ImportError:
        raise SettingsError("s3: URIs need the package obstore: pip install -c constraints.txt '.[s3]'") from None
    config: Any = {}
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    if settings.region or settings.endpoint:
        config["region"] = settings.region or "us-east-1"  # servers of one's own ignore it; it is signed all the same
    if settings.access_key_id:
        config |= {"access_key_id": settings.access_key_id, "secret_access_key": settings.secret_access_key}
    if settings.server_side_encryption:
        config["aws_server_side_encryption"] = settings.server_side_encryption
    if settings.kms_key_id:
        config["aws_sse_kms_key_id"] = settings.kms_key_id
    timeout = timedelta(seconds=TIMEOUT_S)
    try:
        return S3Store(
            bucket,
            config=config,
            client_options={"timeout": timeout, "allow_http": settings.endpoint.startswith("http://")},
            retry_config={"max_retries": RETRIES, "retry_timeout": timeout},
        )
    except Exception as error:  # obstore's own classes, one for each cause
        raise SettingsError(f"s3: {without_secrets(error)}") from None


def s3_reader(settings: Settings) -> S3Reader | None:
    """What reads ``s3:`` URIs of records; None where no prefix of ``images.uri_prefixes`` allows any.

    Raises SettingsError where obstore is missing.
    """
    wanted = [one for one in settings.images.uri_prefixes if one.lower().startswith("s3:")]
    if not wanted:
        return None
    open_bucket("none", settings.s3)  # now rather than at the first record
    return S3Reader(settings.s3)


class S3Reader:
    """Reads objects of any bucket, as `monitor.records.uris.fetch_image` asks for them."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._buckets: dict[str, S3Store] = {}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        """``Body``: a stream of the object. Raises what obstore raises."""
        import obstore

        store = self._buckets.get(Bucket)
        if store is None:
            store = self._buckets[Bucket] = open_bucket(Bucket, self._settings)
        return {"Body": _Body(iter(obstore.get(store, Key).stream(READ_BYTES)))}


class _Body:
    """What comes of an object, piece by piece."""

    def __init__(self, pieces: Iterator[Any]) -> None:
        self._pieces = pieces

    def read(self, _size: int) -> bytes:
        """The next piece, empty at the end."""
        return bytes(next(self._pieces, b""))


def without_secrets(error: Exception) -> str:
    """An error's first line: what follows may hold the request, with its signature."""
    first = str(error).strip().splitlines()
    text = first[0] if first else ""
    return f"{type(error).__name__}: {text.partition('?')[0][:200]}"
