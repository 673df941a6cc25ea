"""An annotation export into the store, as if its labels had come over Kafka."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from itertools import compress, islice
from pathlib import Path
from tempfile import TemporaryFile

import msgspec

from monitor.audit import record
from monitor.classes import Classes
from monitor.drift import Baselines
from monitor.errors import BadRecord, InputError, StoreError
from monitor.evaluate import Evaluator
from monitor.label_fit import LabelFit
from monitor.label_rows import label_row
from monitor.label_spool import LabelSpool
from monitor.labels.formats import FORMATS, detect_format, read_labels
from monitor.labels.known import only_known
from monitor.labels.records import FormRule, InputIdRule
from monitor.records import Label, Limits, Model, decode_chunk
from monitor.records.reasons import shorten
from monitor.records.types import EPOCH
from monitor.settings import Settings
from monitor.sources.files import FileSource
from monitor.sources.protocol import Partition, RawRecord
from monitor.store.baselines import newest_by_model
from monitor.store.store import Store
from monitor.store.values import LabelKey
from monitor.tallies import LABELS, TallyKey

AT_ONCE = 500
LINES = ("jsonl", (".jsonl", ".jsonl.gz"))
"""The format of label records as they are, and the names by which it is recognised."""
CLUSTER = "import"
ATTEMPTS = 3
"""Of the transaction: the database may have given up something else for it, a retention's deletion for example."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is said about an export; fields as in `monitor.labels.formats.read_labels`."""

    path: Path
    format: str
    label_time_us: int
    model: str | None = None
    version: str | None = None
    annotator: str = "import"
    annotation_version: int = 1
    purpose: str = "spot_check"
    selection_probability: float | None = None
    input_id: InputIdRule = "stem"
    png_folder: Path | None = None
    form: FormRule = "auto"
    explicit: frozenset[str] = frozenset()
    who: str = ""
    """For the audit log; "" writes no line."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an export's labels, and of those that waited for their records."""

    outcomes: Counter[str]
    judged: int
    """Records."""
    unjoinable: int
    """Labels that came too late."""
    uncorrectable: int
    """Corrections, of labels that were judged in time, that did."""
    refused: Counter[str]
    """By reason: labels that fit no record of their input, as it was seen when they were judged; dead letters."""
    left_out: Counter[str]
    """By reason: labels that do not fit the predictions that were there before them; not stored."""

    def __add__(self, other: Imported) -> Imported:
        return Imported(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


NOTHING = Imported(Counter(), 0, 0, 0, Counter(), Counter())


def import_file(
    store: Store,
    settings: Settings,
    request: ImportRequest,
    on_bad: Callable[[RawRecord, BadRecord], None] | None = None,
    on_misfit: Callable[[str], None] | None = None,
) -> Imported:
    """Read, check and store an export, then judge.

    ``on_misfit``: is told of each label that does not fit the prediction that is there already; the rest is stored.

    Raises InputError that names the file, the entry and the reason; nothing of the export is stored then. Without
    ``on_misfit`` such a label is such an entry.
    """
    baselines = Baselines(store)
    name, classes = classes_of(store, lambda identity: baselines.of(identity).classes, request.model)
    limits = Limits.from_settings(settings)
    fit = LabelFit(store, limits, name, on_misfit)
    unchecked: LabelFit | None = fit
    records: Iterable[bytes]
    known = {model for model, _ in store.active_baselines()}
    if request.format == LINES[0] or (request.format == "auto" and request.path.name.endswith(LINES[1])):
        records = _lines(request.path, classes, known, limits, fit)
        unchecked = None  # they are checked line by line
    else:
        form = detect_format(request.path) if request.format == "auto" else request.format
        found = read_labels(
            request.path,
            form,
            annotator=request.annotator,
            annotation_version=request.annotation_version,
            label_time=EPOCH + timedelta(microseconds=request.label_time_us),
            purpose=request.purpose,
            model=Model(name, request.version) if request.version else None,
            selection_probability=request.selection_probability,
            input_id=request.input_id,
            classes=classes,
            png_folder=request.png_folder,
            form=request.form,
            explicit=request.explicit,
            limits=limits,
        )
        if form in FORMATS and FORMATS[form].asked:
            found = only_known(request.path, found, store.exports.known)
        records = (msgspec.json.encode(record) for record in found)
    outcomes = import_labels(store, request.path, records, limits, name, request.who, unchecked)
    with closing(Evaluator(store, settings, on_bad=on_bad)) as evaluator:
        evaluator.settle()
        return Imported(outcomes, *evaluator.judged, evaluator.refused, fit.left_out)


def _lines(path: Path, classes: Classes, models: set[str], limits: Limits, fit: LabelFit) -> Iterator[bytes]:
    """Label records of a file of JSON Lines as they stand there, each checked."""
    twins = _Twins(path)
    with closing(FileSource([path], limits.max_value_bytes)) as source:
        while not source.exhausted:
            raws = source.poll(0.0, AT_ONCE).records
            labels = []
            for raw, found in zip(raws, decode_chunk(raws, limits, _now_us()), strict=True):
                if not isinstance(found, Label):
                    why = found if isinstance(found, BadRecord) else "a prediction, not a label"
                    raise InputError(f"{path}: line {raw.offset}: {why}")
                _check_names(f"{path}: line {raw.offset}", found, classes, models)
                twins.check(raw, found)
                labels.append((f"line {raw.offset}", found))
            yield from (raw.value or b"" for raw in compress(raws, fit.check(path, labels)))


def _check_names(entry: str, label: Label, classes: Classes, models: set[str]) -> None:
    if label.model is not None and label.model.name not in models:
        raise InputError(f"{entry}: no active baseline has the model name {shorten(label.model.name)}")
    known = classes.position
    for i, one in enumerate(label.instances or ()):
        if one.class_name not in known:
            name = shorten(one.class_name)
            raise InputError(f"{entry}: instances[{i}].class {name} is no class of the model's baseline")


class _Twins:
    """Label records of one file that name the same annotation: equal ones are repeats, others contradict each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[tuple[LabelKey, int], tuple[int, bytes]] = {}
        """Line and digest of the first of each."""

    def check(self, raw: RawRecord, label: Label) -> None:
        """Raises InputError that names both lines."""
        digest = hashlib.blake2b(_in_one_order(raw.value or b""), digest_size=16).digest()
        key = label_row(raw, label).key, label.annotation_version
        line, first = self._seen.setdefault(key, (raw.offset, digest))
        if first != digest:
            raise InputError(
                f"{self._path}: line {raw.offset}: input_id {shorten(label.input_id)}: another label by"
                f" {shorten(label.annotator)} of annotation_version {label.annotation_version} than in line {line}"
            )


def _in_one_order(value: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(value), order="sorted")
    except (ValueError, OverflowError, RecursionError):
        return value  # what a user adds is not read, and may be what JSON does not allow


def _now_us() -> int:
    return time.time_ns() // 1000


def import_labels(
    store: Store,
    path: Path,
    records: Iterable[bytes],
    limits: Limits,
    model: str,
    who: str = "",
    fit: LabelFit | None = None,
) -> Counter[str]:
    """Store label records in one transaction; what became of them, by outcome.

    ``fit``: checks them first against the predictions that are there; None stores them whether they fit or not.

    All are read before any is stored, and stored in the order of their keys: in that of the file, a long transaction
    and a worker that reads labels of the same inputs would wait for each other.
    """
    with TemporaryFile() as file:
        spool = LabelSpool(file)
        _read_into(spool, path, records, limits, fit)
        attempt = 1
        while True:
            try:
                with store.transaction() as tx:
                    outcomes = tx.insert_sorted_labels(spool.portions)
                    tx.add_tallies({TallyKey(LABELS, "", "", name, 0): count for name, count in outcomes.items()})
                    if who:
                        record(tx, who, "labels.import", model, {"file": path.name, "outcomes": dict(outcomes)})
                return outcomes
            except StoreError as error:
                if attempt == ATTEMPTS or not error.retriable:
                    raise
                attempt += 1


def _read_into(spool: LabelSpool, path: Path, records: Iterable[bytes], limits: Limits, fit: LabelFit | None) -> None:
    name = str(path).encode("utf-8", "backslashreplace").decode()
    partition = Partition(CLUSTER, name, name, 0)
    waiting = iter(records)
    offset = 1  # as lines of files are counted
    while some := list(islice(waiting, AT_ONCE)):
        raws = [RawRecord(partition, offset + i, value, None, (), None) for i, value in enumerate(some)]
        offset += len(raws)
        labels = []
        for raw, found in zip(raws, decode_chunk(raws, limits, _now_us()), strict=True):
            if isinstance(found, BadRecord) or not isinstance(found, Label):
                raise InputError(f"{path}: label {raw.offset}: {found}")  # the formats' checks are stricter
            labels.append((raw, found))
        if fit is not None:
            labels = list(compress(labels, fit.check(path, [(f"label {raw.offset}", one) for raw, one in labels])))
        spool.add([label_row(raw, label) for raw, label in labels])


def classes_of(store: Store, load: Callable[[str], Classes], model: str | None) -> tuple[str, Classes]:
    """The model that labels are for, and its classes: the only one with a baseline, where none is named.

    Raises InputError where that is not clear.
    """
    newest = newest_by_model(store.active_baselines())
    if not newest:
        raise InputError("the store has no active baseline: segwatch baseline build --activate makes one")
    if model is None and len(newest) > 1:
        raise InputError(f"there are several models: name one with --model ({', '.join(sorted(newest))})")
    name = next(iter(newest)) if model is None else model
    if name not in newest:
        raise InputError(f"--model {name}: no active baseline has this name")
    return name, load(newest[name].meta.id)
