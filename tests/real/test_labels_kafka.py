"""Labels on a real Kafka give the figures that an import of the same export gives, and the counters that SLOs use."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.windows import SECOND_US, to_text
from tests.embedded import encode
from tests.made_labels import after, label, seen, square
from tests.made_records import lines, predictions
from tests.real.component import free_ports, stop
from tests.real.kafka_server import KafkaServer
from tests.real.postgres import Postgres
from tests.real.service import command, eventually, start

pytestmark = pytest.mark.slow

RECORDS = 60


def environ_of(postgres: Postgres, folder: Path) -> dict[str, str]:
    """A database with an active baseline, and no Kafka."""
    environ = {
        "SEGWATCH_STORE_URL": postgres.fresh_database(),
        "SEGWATCH_DATA_DIR": str(folder / "data"),
        "SEGWATCH_WINDOWS_PANE_SECONDS": "10",
        "SEGWATCH_WINDOWS_LENGTHS_SECONDS": "20",
        "SEGWATCH_WINDOWS_CLOSE_DELAY_SECONDS": "1",
    }
    folder.mkdir()
    base = folder / "baseline.jsonl"
    base.write_bytes(lines(predictions(500, time.time_ns() // 1000 - 50 * 3600 * SECOND_US, 20, first=500_000)))
    arguments = ["baseline", "build", "--model", "street", "--version", "1", "--records", str(base), "--activate"]
    built = command(arguments, environ, folder)
    assert built.returncode == 0, built.stderr
    return environ


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        stop(process)


def figures(environ: dict[str, str], folder: Path) -> dict[str, Any]:
    shown = command(["quality", "--model", "street", "--window", "all", "--json"], environ, folder)
    assert shown.returncode == 0, shown.stderr
    windows: list[dict[str, Any]] = json.loads(shown.stdout)["windows"]
    return windows[0] if windows else {"labelled": 0}


def test_kafka_and_import_give_the_same_figures(
    kafka: KafkaServer, postgres: Postgres, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    began_us = time.time_ns() // 1000 - 600 * SECOND_US
    times = [began_us + i * SECOND_US for i in range(RECORDS)]
    off = [i % 6 for i in range(RECORDS)]
    records = [seen(i, times[i], ("car", 0.9, square(10)), sequence=None) for i in range(RECORDS)]
    told = [label(i, after(times[i], 60), ("car", square(10 + off[i]))) for i in range(RECORDS)]

    by_import = environ_of(postgres, tmp_path / "import")
    file = tmp_path / "records.jsonl"
    file.write_bytes(b"".join(encode(record) + b"\n" for record in records))
    replayed = command(["replay", str(file)], by_import, tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    export = {
        "images": [{"id": i, "file_name": f"input-{i:06d}.png", "height": 40, "width": 40} for i in range(RECORDS)],
        "categories": [{"id": 7, "name": "car"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "iscrowd": 0, "segmentation": square(10 + off[i])}
            for i in range(RECORDS)
        ],
    }
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps(export))
    at = to_text(after(times[-1], 60))
    imported = command(["labels", "import", str(coco), "--annotator", "ann", "--label-time", at], by_import, tmp_path)
    assert imported.returncode == 0, imported.stderr
    expected = figures(by_import, tmp_path)
    assert expected["labelled"] == RECORDS

    (port,) = free_ports(1)
    by_kafka = {
        **environ_of(postgres, tmp_path / "kafka"),
        "SEGWATCH_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "SEGWATCH_KAFKA_PREDICTIONS_TOPIC": kafka.fresh_topic("predictions", partitions=2),
        "SEGWATCH_KAFKA_LABELS_TOPIC": kafka.fresh_topic("labels", partitions=2),
        "SEGWATCH_KAFKA_DEAD_LETTER_TOPIC": kafka.fresh_topic("dead"),
        "SEGWATCH_KAFKA_ACTIONS_TOPIC": kafka.fresh_topic("actions"),
        "SEGWATCH_KAFKA_GROUP_ID": f"group-{port}",
        "SEGWATCH_WEB_PORT": str(port),
    }
    # Labels first, half of them twice: neither order nor repetition matters.
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_bytes(b"".join(encode(one) + b"\n" for one in [*told, *told[::2], *records]))
    published = command(["publish", str(mixed)], by_kafka, tmp_path)
    assert published.returncode == 0, published.stderr
    log = tmp_path / "service.log"
    processes.append(start("all", by_kafka, log))

    def judged() -> dict[str, Any] | None:
        shown = figures(by_kafka, tmp_path)
        return shown if shown["labelled"] == RECORDS else None

    found = eventually("all labels are judged", judged, 90, log)
    same = ("records", "labelled", "assumed_uniform", "classes")
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    status = json.loads(command(["status", "--json"], by_kafka, tmp_path).stdout)
    assert status["models"][0]["records"]["ok"] == RECORDS
