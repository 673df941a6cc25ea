"""Every error that segwatch raises on purpose.

SegwatchError                 one clear line for the user
|-- InputError                bad input or settings: exit code 2
|   |-- SettingsError         names the setting
|   |-- BadRecord             names the reason; the record goes to the dead letters
|   |-- BaselineError         names the model and version
|   |-- LeaseRefused          names the sample whose lease is another's, or has ended
|   `-- UnknownSample         names an input of which no record is stored
|-- CheckFailed               a check said no: exit code 1
`-- StoreError                the database refused
    |-- WriterExists          another process already writes this SQLite store
    |-- PartitionLost         another worker advanced the partition's offset
    `-- NotLeader             the evaluator's lock went to another process
"""

from __future__ import annotations


class SegwatchError(Exception):
    """Base of all errors whose message is written for the user."""


class InputError(SegwatchError):
    """Bad input or settings: the command ends with exit code 2."""


class SettingsError(InputError):
    """A setting is unknown, ill-typed or out of range; the message names it."""


class BadRecord(InputError):
    """A record that cannot be counted.

    ``reason`` is one of a fixed set of short words (a metric's label value, so its
    cardinality is bounded); ``detail`` says what exactly is wrong, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BaselineError(InputError):
    """A baseline is missing, damaged, or does not fit the records."""


class LeaseRefused(InputError):
    """A sample of the relabel queue is not (any more) leased to whoever says so; nothing was changed."""


class UnknownSample(InputError):
    """No record of this input is stored."""


class CheckFailed(SegwatchError):
    """A check said no: the command ends with exit code 1."""


class StoreError(SegwatchError):
    """The database refused. ``retriable``: it may work when tried again, for it was only away or busy."""

    retriable: bool = False


class WriterExists(StoreError):
    """Another process already writes this SQLite store."""


class PartitionLost(StoreError):
    """The stored offset is not the expected one: another worker owns the partition now."""

    def __init__(self, partition: object, expected: int | None, stored: int | None) -> None:
        super().__init__(f"{partition}: expected offset {expected}, the store has {stored}")
        self.partition = partition
        self.expected = expected
        self.stored = stored


class NotLeader(StoreError):
    """The evaluator's lock is held by another process."""
