"""The producer stays out of the way of the service that it lives in, whatever happens behind it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monitor.masks import decode_rle
from monitor.producer import Message, Producer, Refused, Sampler, rle
from monitor.records import Limits, Prediction, decode
from monitor.sources.protocol import Partition, RawRecord
from tests.made_png import png

IMAGE = png(np.zeros((4, 4), np.uint8))
WAIT_S = 10.0


def record(number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "input_id": f"input-{number}",
        "model": {"name": "street", "version": "3"},
        "image": {"media_type": "image/png", "data": IMAGE},
        "instances": [{"class": "car", "score": np.float32(0.5), "mask": rle(np.eye(4, dtype=np.bool_))}],
        **more,
    }


class Far:
    """The other end. ``down``: every delivery fails; ``stuck``: none returns."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.tries = 0
        self.down = False
        self.stuck: threading.Event | None = None
        self.refuses: set[bytes] = set()

    def __call__(self, message: Message) -> None:
        self.tries += 1
        if self.stuck is not None:
            self.stuck.wait(WAIT_S)
        if self.down:
            raise ConnectionError("nobody there")
        if message.key in self.refuses:
            raise Refused
        self.got.append(message)

    @property
    def ids(self) -> list[str]:
        return [json.loads(message.value)["input_id"] for message in self.got]


@pytest.fixture
def far() -> Iterator[Far]:
    far = Far()
    yield far
    if far.stuck is not None:
        far.stuck.set()


class TestRecords:
    def test_what_arrives_is_what_segwatch_reads(self, far: Far) -> None:
        with Producer(send=far) as producer:
            assert producer.publish(record(7, sequence="drive", slices={"camera": "7"}))
            assert producer.flush(WAIT_S)
        (message,) = far.got
        where, now_us = Partition("c", "t", "t", 0), time.time_ns() // 1000
        read = decode(RawRecord(where, 0, message.value, message.key, message.headers, now_us), Limits())
        assert isinstance(read, Prediction)
        assert read.image is not None and read.image.data == IMAGE
        assert message.key == b"drive"
        assert dict(message.headers)["ce_id"] == b"street/3/input-7"
        assert abs(read.event_time_us - time.time_ns() // 1000) < 60_000_000

    @given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
    def test_run_lengths_hold_the_same_mask(self, mask: Any) -> None:
        found = rle(mask)
        assert (decode_rle(found["size"], found["counts"]) == mask).all()

    @pytest.mark.parametrize(
        "bad",
        [None, {}, {"input_id": 3}, record(event_time=object()), record(x={1, 2}), record(embedding=[float("nan")])],
    )
    def test_what_is_no_record_is_counted_and_raises_nothing(self, far: Far, bad: Any) -> None:
        with Producer(send=far, sampler=Sampler(1.0)) as producer:
            producer.publish(bad)
            assert producer.publish(record(1)) and producer.flush(WAIT_S)
            assert producer.dropped_by_reason == {"bad": 1} and producer.sent == 1


class TestSampler:
    def test_the_share_is_the_probability_and_the_same_everywhere(self) -> None:
        sampler = Sampler(0.05, salt="s")
        taken = [i for i in range(200_000) if sampler.takes(f"cam-{i}")]
        assert abs(len(taken) - 10_000) < 4 * (200_000 * 0.05 * 0.95) ** 0.5
        program = (
            "from monitor.producer import Sampler; s = Sampler(0.05, salt='s');"
            "print(sum(s.takes(f'cam-{i}') for i in range(200_000)))"
        )
        assert int(subprocess.check_output([sys.executable, "-c", program])) == len(taken)

    def test_a_lower_probability_takes_a_part_of_a_higher_ones_sample(self) -> None:
        low, high, other = Sampler(0.1), Sampler(0.3), Sampler(0.3, salt="x")
        names = [f"{i}" for i in range(5000)]
        assert {n for n in names if low.takes(n)} < {n for n in names if high.takes(n)}
        both = sum(high.takes(n) and other.takes(n) for n in names)
        assert abs(both - 450) < 4 * (5000 * 0.09 * 0.91) ** 0.5  # independent

    @pytest.mark.parametrize("probability", [0, -0.1, 1.1, float("nan")])
    def test_a_probability_that_is_none_is_refused(self, probability: float) -> None:
        with pytest.raises(ValueError, match="probability must be in"):
            Sampler(probability)

    def test_only_the_sample_is_sent_with_its_probability_written_in(self, far: Far) -> None:
        sampler = Sampler(0.5)
        with Producer(send=far, sampler=sampler) as producer:
            for i in range(100):
                assert producer.publish(record(i, sampling_probability=0.1)) == producer.wants(f"input-{i}")
            assert producer.flush(WAIT_S)
            assert producer.skipped + producer.sent == 100
        assert far.ids == [f"input-{i}" for i in range(100) if sampler.takes(f"input-{i}")]
        assert {json.loads(message.value)["sampling_probability"] for message in far.got} == {0.05}


class TestTrouble:
    def test_everything_arrives_once_the_other_end_is_back(self, far: Far) -> None:
        far.down = True
        with Producer(send=far) as producer:
            assert all(producer.publish(record(i)) for i in range(250))
            assert not producer.flush(0.5) and far.tries >= 2
            far.down = False
            assert producer.flush(WAIT_S) and producer.queued == 0
            assert (producer.sent, producer.dropped) == (250, 0)
        assert far.ids == [f"input-{i}" for i in range(250)]

    def test_a_full_queue_drops_at_once_and_counts(self, far: Far) -> None:
        far.stuck = threading.Event()
        with Producer(send=far, queue_size=10) as producer:
            took = [producer.publish(record(i)) for i in range(1000)]
            assert sum(took) == 10 and all(took[:10])
            assert producer.dropped_by_reason == {"queue_full": 990} and producer.queued == 10
            far.stuck.set()
            assert producer.flush(WAIT_S) and len(far.got) == 10

    def test_memory_is_bounded_by_bytes_too(self, far: Far) -> None:
        far.stuck = threading.Event()
        image = {"media_type": "image/jpeg", "data": b"x" * 1_000_000}
        with Producer(send=far, queue_bytes=5_500_000) as producer:
            assert sum(producer.publish(record(i, image=image)) for i in range(20)) == 5
            far.stuck.set()
            assert producer.flush(WAIT_S)
            assert producer.publish(record(99, image=image)) and producer.flush(WAIT_S)

    def test_one_that_is_refused_stops_nobody(self, far: Far) -> None:
        far.refuses = {b"input-1"}
        with Producer(send=far) as producer:
            for i in range(3):
                producer.publish(record(i))
            assert producer.flush(WAIT_S)
            assert producer.dropped_by_reason == {"refused": 1} and far.ids == ["input-0", "input-2"]

    def test_close_gives_up_in_time_and_every_record_is_accounted_for(self, far: Far) -> None:
        far.stuck = threading.Event()
        producer = Producer(send=far)
        for i in range(20):
            producer.publish(record(i))
        began_s = time.monotonic()
        assert not producer.close(0.3)
        assert time.monotonic() - began_s < 2
        assert not producer.publish(record(99))
        far.stuck.set()
        time.sleep(0.1)
        assert producer.sent + producer.dropped == 21 and producer.dropped_by_reason == {"closed": 21}

    def test_drops_are_said_but_not_each_of_them(self, far: Far, caplog: pytest.LogCaptureFixture) -> None:
        far.down = True
        with caplog.at_level(logging.WARNING, "segwatch.producer"):
            producer = Producer(send=far, queue_size=5)
            for i in range(500):
                producer.publish(record(i))
            time.sleep(1.0)
            assert len(caplog.records) == 1 and "nobody there" in caplog.text
            producer.close(0.1)
        assert len(caplog.records) == 2
        assert f"{producer.dropped} in all" in caplog.messages[1] and producer.dropped == 500

    def test_a_call_costs_the_service_next_to_nothing_while_the_other_end_is_stuck(self, far: Far) -> None:
        far.stuck = threading.Event()
        took_s = []
        one = record()
        with Producer(send=far, queue_size=1000, sampler=Sampler(1.0)) as producer:
            for _ in range(5000):
                began_s = time.perf_counter()
                producer.publish(one)
                took_s.append(time.perf_counter() - began_s)
            far.stuck.set()
        assert np.percentile(took_s, 99) < 0.001

    def test_neither_or_both_ends_is_a_mistake_that_shows_at_once(self) -> None:
        for arguments in ({}, {"bootstrap_servers": "h:1", "send": print}):
            with pytest.raises(ValueError, match="either bootstrap_servers or send"):
                Producer(**arguments)  # type: ignore[arg-type]


def _in_the_child(producer: Producer, far: Far, answer: Any) -> None:
    before = producer.queued
    far.stuck = None
    took = producer.publish(record(1000))
    answer.put((before, took, producer.flush(WAIT_S), far.ids))
    producer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_sends_its_own_records_and_leaves_the_parents_alone(far: Far) -> None:
    far.stuck = threading.Event()
    context = multiprocessing.get_context("fork")
    with Producer(send=far) as producer:
        for i in range(20):
            producer.publish(record(i))
        answer: Any = context.SimpleQueue()
        # The lock is held at the moment of the fork, as by a thread that is just publishing.
        with producer._changed:
            child = context.Process(target=_in_the_child, args=(producer, far, answer))
            child.start()
        assert answer.get() == (0, True, True, ["input-1000"])
        child.join(WAIT_S)
        assert child.exitcode == 0
        far.stuck.set()
        assert producer.flush(WAIT_S)
        assert far.ids == [f"input-{i}" for i in range(20)]


def test_what_waits_at_the_end_of_a_program_is_still_sent() -> None:
    program = (
        "import time\n"
        "from monitor.producer import Producer\n"
        "def send(message):\n"
        "    time.sleep(0.05); print(message.key.decode(), flush=True)\n"
        "p = Producer(send=send)\n"
        "[p.publish({'input_id': str(i), 'model': {'name': 'm', 'version': '1'}}) for i in range(5)]\n"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).split() == ["0", "1", "2", "3", "4"]


def test_the_example_in_the_docs_runs(checkout: Path) -> None:
    page = (checkout / "docs" / "ways-in.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    subprocess.run([sys.executable, "-W", "error", "-c", example], check=True, cwd=checkout)


def test_importing_it_takes_nothing_but_the_standard_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import monitor.producer;"
        "print(sorted({n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "['monitor']"
    loaded = "import sys, monitor.producer; print(sorted(n for n in sys.modules if n.startswith('monitor')))"
    names = subprocess.check_output([sys.executable, "-c", loaded], text=True)
    assert all(name.startswith(("monitor'", "monitor.producer")) for name in names.strip("[]\n' ").split("', '")[1:])
