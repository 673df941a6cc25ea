"""An annotation export into the store, as if its labels had come over Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile

import msgspec

from monitor.audit import record
from monitor.classes import Classes
from monitor.drift import Baselines
from monitor.errors import BadRecord, InputError, StoreError
from monitor.evaluate import Evaluator
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


def import_file(store: Store, settings: Settings, request: ImportRequest) -> tuple[Counter[str], tuple[int, int, int]]:
    """Read, check and store an export, then judge.

    Returns outcomes of the labels, and how many records were judged, how many labels came too late for that, and how
    many corrections of labels that were judged in time.

    Raises InputError that names the file, the entry and the reason; nothing of the export is stored then.
    """
    baselines = Baselines(store)
    name, classes = classes_of(store, lambda identity: baselines.of(identity).classes, request.model)
    limits = Limits.from_settings(settings)
    records: Iterable[bytes]
    known = {model for model, _ in store.active_baselines()}
    if request.format == LINES[0] or (request.format == "auto" and request.path.name.endswith(LINES[1])):
        records = _lines(request.path, classes, known, limits)
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
    outcomes = import_labels(store, request.path, records, limits, name, request.who)
    with closing(Evaluator(store, settings)) as evaluator:
        evaluator.settle()
        return outcomes, evaluator.judged


def _lines(path: Path, classes: Classes, models: set[str], limits: Limits) -> Iterator[bytes]:
    """Label records of a file of JSON Lines as they stand there, each checked."""
    known = classes.position
    with closing(FileSource([path], limits.max_value_bytes)) as source:
        while not source.exhausted:
            raws = source.poll(0.0, AT_ONCE).records
            for raw, found in zip(raws, decode_chunk(raws, limits), strict=True):
                if not isinstance(found, Label):
                    why = found if isinstance(found, BadRecord) else "a prediction, not a label"
                    raise InputError(f"{path}: line {raw.offset}: {why}")
                if found.model is not None and found.model.name not in models:
                    name = shorten(found.model.name)
                    raise InputError(f"{path}: line {raw.offset}: no active baseline has the model name {name}")
                for i, one in enumerate(found.instances or ()):
                    if one.class_name not in known:
                        raise InputError(
                            f"{path}: line {raw.offset}: instances[{i}].class {shorten(one.class_name)}"
                            " is no class of the model's baseline"
                        )
                yield raw.value or b""


def import_labels(
    store: Store, path: Path, records: Iterable[bytes], limits: Limits, model: str, who: str = ""
) -> Counter[str]:
    """Store label records in one transaction; what became of them, by outcome.

    All are read before any is stored, and stored in the order of their keys: in that of the file, a long transaction
    and a worker that reads labels of the same inputs would wait for each other.
    """
    with TemporaryFile() as file:
        spool = LabelSpool(file)
        _read_into(spool, path, records, limits)
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


def _read_into(spool: LabelSpool, path: Path, records: Iterable[bytes], limits: Limits) -> None:
    name = str(path).encode("utf-8", "backslashreplace").decode()
    partition = Partition(CLUSTER, name, name, 0)
    waiting = iter(records)
    offset = 0
    while some := list(islice(waiting, AT_ONCE)):
        raws = [RawRecord(partition, offset + i, value, None, (), None) for i, value in enumerate(some)]
        offset += len(raws)
        rows = []
        for raw, found in zip(raws, decode_chunk(raws, limits), strict=True):
            if isinstance(found, BadRecord) or not isinstance(found, Label):
                raise InputError(f"{path}: label {raw.offset + 1}: {found}")  # the formats' checks are stricter
            rows.append(label_row(raw, found))
        spool.add(rows)


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
