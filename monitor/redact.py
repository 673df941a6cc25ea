"""What ``redact.drop_fields`` keeps from being stored: taken out of records as soon as they are read."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from monitor.records import Label, Prediction
from monitor.settings import RedactSettings

KEY = "pseudonyms"
"""Name of the store's key that pseudonyms are made with."""
LABEL_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Label)) | {"type"}


class Redaction:
    """``key``: the store's own, so that all workers give a sequence the same pseudonym, and nobody else can."""

    def __init__(self, settings: RedactSettings, key: bytes) -> None:
        self.active = settings.active
        self._slices = {name.removeprefix("slices.") for name in settings.drop_fields if name != "sequence"}
        self._sequence = "sequence" in settings.drop_fields
        self._key = key

    def prediction(self, record: Prediction) -> Prediction:
        """The record without the fields that are dropped.

        A sequence becomes a keyed hash of its name rather than nothing: which records belong together has to be known,
        or the intervals of what is estimated from them would be too narrow.
        """
        changes: dict[str, Any] = {}
        if self._slices and not self._slices.isdisjoint(record.slices):
            changes["slices"] = {key: value for key, value in record.slices.items() if key not in self._slices}
        if self._sequence and record.sequence is not None:
            changes["sequence"] = self.pseudonym(record.sequence)
        if not changes:
            return record
        fields = {name: getattr(record, name) for name in record.__struct_fields__}
        changed = Prediction(**{**fields, **changes})
        changed.__dict__.update(
            record.__dict__
        )  # what was measured of it already; nothing there depends on these fields
        return changed

    def pseudonym(self, name: str) -> str:
        """The same for the same name in this store, and no way back to it without the store's key."""
        hashed = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=self._key, digest_size=12)
        return f"redacted-{hashed.hexdigest()}"

    def label(self, value: bytes) -> bytes:
        """A label's record with its own fields alone: labels are stored as they came, and may carry a user's."""
        if not self.active:
            return value
        is_json = value[:1] in (b"{", b" ", b"\n", b"\t", b"\r")
        shape = dict[str, msgspec.Raw]
        fields = msgspec.json.decode(value, type=shape) if is_json else msgspec.msgpack.decode(value, type=shape)
        if fields.keys() <= LABEL_FIELDS:
            return value
        own = {name: one for name, one in fields.items() if name in LABEL_FIELDS}
        return msgspec.json.encode(own) if is_json else msgspec.msgpack.encode(own)
