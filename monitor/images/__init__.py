"""Images that are kept of records: names, the two places where they can be, what is redacted, and who writes them."""

from __future__ import annotations

from monitor.images.names import ImageName, input_digest, name_of
from monitor.images.protocol import ImageStore, ImageStoreError
from monitor.images.stores import open_images

__all__ = ["ImageName", "ImageStore", "ImageStoreError", "input_digest", "name_of", "open_images"]
