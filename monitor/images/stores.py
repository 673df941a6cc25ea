"""Which place images are kept in: by ``samples.url``."""

from __future__ import annotations

from pathlib import Path

from monitor.errors import SettingsError
from monitor.images.local_files import LocalImages
from monitor.images.protocol import ImageStore
from monitor.settings import Settings


def open_images(settings: Settings) -> ImageStore:
    """The place; nothing is asked of it yet. Raises SettingsError."""
    url = settings.samples.url
    if not url:
        return LocalImages(Path(settings.data_dir) / "images")
    scheme, found, rest = url.partition("://")
    if not found:
        return LocalImages(Path(url))
    if scheme == "file":
        return LocalImages(Path(rest))
    if scheme != "s3":
        raise SettingsError(f"samples.url: {scheme} is not supported, use s3://bucket/folder or a folder")
    bucket, _, folder = rest.partition("/")
    if not bucket or "@" in bucket:
        raise SettingsError("samples.url: expected s3://bucket/folder (keys belong into s3.access_key_id)")
    from monitor.images.s3_objects import S3Images

    return S3Images(bucket, folder, settings.s3)
