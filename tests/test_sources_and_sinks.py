"""What every source and sink has in common, and the sinks that need no broker."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import monitor.sinks
import monitor.sources
from monitor.settings import KafkaSettings
from monitor.sinks.files import FileSink
from monitor.sinks.memory import MemorySink
from monitor.sinks.protocol import Sink, SinkError
from monitor.sources.memory import MemorySource
from monitor.sources.protocol import Gap, Partition, Source
from monitor.store.values import OutboxMessage

TOPICS = KafkaSettings()
CAMERA = Partition("memory", "t1", "predictions", 0)


@pytest.mark.parametrize(
    ("package", "table", "protocol"),
    [(monitor.sources, monitor.sources.SOURCES, Source), (monitor.sinks, monitor.sinks.SINKS, Sink)],
    ids=["sources", "sinks"],
)
def test_every_file_with_a_source_or_sink_is_in_the_table_and_keeps_the_protocol(
    package: Any, table: Mapping[str, str], protocol: Any
) -> None:
    wanted = {name: member for name, member in vars(protocol).items() if not name.startswith("_")}
    there = set()
    for path in Path(package.__path__[0]).glob("*.py"):
        module = importlib.import_module(
            f"{package.__name__}.{path.stem}" if path.stem != "__init__" else package.__name__
        )
        for name, found in vars(module).items():
            own = inspect.isclass(found) and found.__module__ == module.__name__ and found is not protocol
            if own and all(hasattr(found, member) for member in wanted):
                there.add((path.stem, name))
    assert there == set(table.items())
    for module_name, class_name in table.items():
        found = getattr(importlib.import_module(f"{package.__name__}.{module_name}"), class_name)
        for name, member in wanted.items():
            if inspect.isfunction(member):
                assert list(inspect.signature(getattr(found, name)).parameters) == list(
                    inspect.signature(member).parameters
                ), f"{class_name}.{name}"
            else:
                assert isinstance(getattr(found, name), property), f"{class_name}.{name}"


def test_the_memory_source_goes_on_at_the_stores_offset_and_tells_of_gaps() -> None:
    source = MemorySource({CAMERA: 2}.get, wall_us=lambda: 77)
    for number in range(10):
        source.append(CAMERA, str(number).encode())
    source.retain(CAMERA, 5)
    polled = source.poll(0.0, 3)
    assert polled.gaps == [Gap(CAMERA, 2, 5)]
    assert [record.offset for record in polled.records] == [5, 6, 7]
    (progress,) = source.progress()
    assert (progress.position, progress.end_offset, progress.caught_up_at_us) == (8, 10, None)
    assert not source.exhausted
    assert len(source.poll(0.0, 3).records) == 2
    assert [source.exhausted] == [True]
    assert source.progress()[0].caught_up_at_us == 77


def test_the_memory_source_flushes_before_it_gives_a_partition_up() -> None:
    flushed: list[Partition] = []
    source = MemorySource(on_revoke=flushed.extend)
    source.append(CAMERA, b"1")
    source.revoke(CAMERA)
    assert flushed == [CAMERA] and source.assigned() == [] and not source.poll(0.0, 1).records


def action(id: str, data: Any) -> OutboxMessage:
    headers = (("ce_specversion", b"1.0"), ("ce_id", id.encode()), ("ce_type", b"segwatch.alert.v1"))
    return OutboxMessage(id, TOPICS.actions_topic, b"key", json.dumps(data).encode(), headers)


def dead_letter(id: str, value: bytes | None) -> OutboxMessage:
    own = (("segwatch_reason", b"bad_json"), ("segwatch_topic", b"p"), ("segwatch_partition", b"3"))
    headers = (("ce_type", b"x"), ("odd", b"\xff"), *own, ("segwatch_offset", b"17"))
    return OutboxMessage(id, TOPICS.dead_letter_topic, None, value, headers)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_an_action_is_written_as_a_cloud_event(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "deep" / ".segwatch", TOPICS)
    sink.add(action("a1", {"model": "street"}))
    assert not (tmp_path / "deep" / ".segwatch" / "actions.jsonl").exists()
    sink.flush()
    sink.close()
    (event,) = lines(tmp_path / "deep" / ".segwatch" / "actions.jsonl")
    assert event == {"specversion": "1.0", "id": "a1", "type": "segwatch.alert.v1", "data": {"model": "street"}}


def test_a_dead_letter_keeps_its_value_as_text_or_base64_and_says_where_it_came_from(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, TOPICS)
    for id, value in (("1", '{"é": '.encode()), ("2", b"\xff\x00"), ("3", None)):
        sink.add(dead_letter(id, value))
    sink.flush()
    sink.close()
    text, binary, none = lines(tmp_path / "dead-letter.jsonl")
    assert text == {
        "id": "1",
        "reason": "bad_json",
        "topic": "p",
        "partition": 3,
        "offset": 17,
        "headers": [["ce_type", "x"], ["odd", "\xff"]],
        "value": '{"é": ',
    }
    assert binary["value_base64"] == "/wA=" and "value" not in binary
    assert none["value"] is None


def test_a_line_that_a_crash_cut_off_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "actions.jsonl"
    path.write_bytes(b'{"id": "whole"}\n{"id": "to')
    sink = FileSink(tmp_path, TOPICS)
    sink.add(action("next", 1))
    sink.flush()
    sink.close()
    assert json.loads(path.read_bytes().splitlines()[-1])["id"] == "next"


def test_a_second_writer_is_refused_and_may_write_when_the_first_is_done(tmp_path: Path) -> None:
    first, second = FileSink(tmp_path, TOPICS), FileSink(tmp_path, TOPICS)
    for sink in (first, second):
        sink.add(action("a", 1))
    first.flush()
    with pytest.raises(SinkError, match=r"actions\.jsonl: another process writes it"):
        second.flush()
    first.close()
    second.flush()
    second.close()
    assert len(lines(tmp_path / "actions.jsonl")) == 2


def test_a_folder_that_cannot_be_written_is_a_sink_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    sink = FileSink(tmp_path / "taken", TOPICS)
    sink.add(action("a", 1))
    with pytest.raises(SinkError, match="taken"):
        sink.flush()


def test_the_memory_sink_delivers_at_flush() -> None:
    sink = MemorySink()
    sink.add(action("a", 1))
    assert sink.delivered == []
    sink.flush()
    assert [message.id for message in sink.delivered] == ["a"]
