"""`segwatch trace`, `model-card`, `audit` and `purge` from the outside, over a store with a little of everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from monitor.audit import http_user, os_user, record
from monitor.cli import cli
from monitor.evaluate import Evaluator
from monitor.images import name_of
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.store.values import OutboxMessage
from monitor.windows import to_text
from tests.embedded import HOUR_US, NOW_US, encode, feed, image_record, open_store, settings_of
from tests.made_labels import after, label, square

EVENT_US = NOW_US - 2 * HOUR_US
INPUT = "frame-000001"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, windows={"lengths_seconds": [3600]}, quality={"spot_checks_per_day": 100_000})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with open_store(settings, ("yard",)) as opened:
        yield opened


@pytest.fixture
def filled(store: Store, settings: Settings) -> None:
    """Two versions saw the input; it has two annotations; one action names it, one is about its window."""
    records = [image_record(n, EVENT_US, model={"name": "yard", "version": v}) for n in range(1, 4) for v in ("1", "2")]
    own = {"input_id": INPUT}
    labels = [
        label(1, after(EVENT_US), ("dog", square(10)), annotation_version=4, **own),
        label(1, after(EVENT_US), ("dog", square(10)), annotator="maria", **own),
    ]
    feed(store, settings, [encode(one) for one in records + labels])
    evaluator = Evaluator(store, settings, wall_us=lambda: NOW_US)
    evaluator.finish()
    evaluator.close()
    start_us = EVENT_US - EVENT_US % HOUR_US
    window = {"start": to_text(start_us), "end": to_text(start_us + HOUR_US)}
    others = {"start": to_text(start_us - HOUR_US), "end": to_text(start_us)}
    bodies: dict[str, dict[str, Any]] = {
        "of its window": {
            "type": "a",
            "model": {"name": "yard", "version": "1"},
            "evidence": {"window": window},
        },
        "naming it": {"type": "b", "model": "yard", "version": "1", "samples": [{"input_id": INPUT}]},
        "of another window": {"type": "c", "model": "yard", "version": "1", "window": others},
    }
    with store.transaction() as tx:
        tx.add_outbox(
            [OutboxMessage(name, "segwatch.actions", b"yard/1", encode(body)) for name, body in bodies.items()]
        )


def run(settings: Settings, *arguments: str) -> Result:
    environ = {"SEGWATCH_DATA_DIR": settings.data_dir, "SEGWATCH_WINDOWS_LENGTHS_SECONDS": "3600"}
    return CliRunner().invoke(cli, arguments, env=environ)


def shown(settings: Settings, *arguments: str) -> dict[str, Any]:
    done = run(settings, *arguments)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class TestTrace:
    def test_from_an_input_to_all_that_became_of_it(self, filled: None, settings: Settings, store: Store) -> None:
        found = shown(settings, "trace", INPUT, "--json")
        assert not found["purged"]
        first, second = found["records"]
        baseline = store.active_baselines()["yard", "1"].meta.id
        assert (first["version"], first["baseline"], second["version"], second["baseline"]) == (
            "1",
            baseline,
            "2",
            None,
        )
        assert first["event_time"] == to_text(EVENT_US)
        assert first["source"] == {"topic": "segwatch.predictions", "number": 0, "offset": 0}
        assert first["image"]["name"] == str(name_of("yard", "1", INPUT, EVENT_US))
        assert second["image"]["name"] == str(name_of("yard", "2", INPUT, EVENT_US))
        (window,) = first["windows"]
        assert window["start"] <= first["event_time"] < window["end"] and window["baseline"] == baseline
        named = {one["id"] for one in first["actions"]}
        assert {"of its window", "naming it"} <= named and "of another window" not in named
        assert [one["stream"] for one in first["spot_checks"]] == ["uniform"]
        assert [(one["annotator"], one["annotation_version"]) for one in found["labels"]] == [("ann", 4), ("maria", 1)]
        annotations = first["judged"]["annotations"]
        assert [(one["annotator"], one["annotation_version"]) for one in annotations] == [("ann", 4), ("maria", 1)]
        assert found["relabel"] and all(one["state"] == "done" for one in found["relabel"])

    def test_as_text_it_says_the_same(self, filled: None, settings: Settings) -> None:
        done = run(settings, "trace", INPUT)
        assert done.exit_code == 0
        for text in (f"input_id: {INPUT}", "annotator: maria", "stream: uniform", "id: naming it"):
            assert text in done.output

    def test_of_what_nobody_knows_it_says_so(self, store: Store, settings: Settings) -> None:
        done = run(settings, "trace", "nobody")
        assert done.exit_code == 1 and "nothing is stored of it" in str(done.exception)

    def test_of_a_purged_input_it_says_that(self, filled: None, store: Store, settings: Settings) -> None:
        store.close()
        proof = shown(settings, "purge", "--input-id", INPUT, "--reason", "asked for")
        assert proof["inputs"][0]["removed"]["sample"] == 2 and proof["who"] == os_user()
        again = shown(settings, "purge", "--input-id", INPUT, "--input-id", INPUT)
        assert [one["nothing_left"] for one in again["inputs"]] == [True]
        done = run(settings, "trace", INPUT, "--json")
        assert done.exit_code == 1 and json.loads(done.stdout)["purged"]
        lines = shown(settings, "audit", "--what", "purge", "--json")["lines"]
        assert [(line["who"], line["detail"]["again"]) for line in lines] == [(os_user(), False), (os_user(), True)]
        assert INPUT not in json.dumps(lines)


class TestModelCard:
    def test_it_says_what_is_known_and_leaves_the_rest(self, filled: None, settings: Settings, tmp_path: Path) -> None:
        out = tmp_path / "card.md"
        assert run(settings, "model-card", "--model", "yard", "--out", str(out)).exit_code == 0
        card = out.read_text()
        for text in (
            "# yard, version 1",
            "| Records | 64 |",
            "| Classes | dog |",
            "## Quality in use",
            "Not known to segwatch",
        ):
            assert text in card
        assert "| dog | spotcheck |" in card

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(("--model", "none"), "no active baseline"), (("--model", "yard", "--version", "9"), "--version 9")],
    )
    def test_what_it_cannot_know_is_refused(
        self, store: Store, settings: Settings, tmp_path: Path, arguments: tuple[str, ...], message: str
    ) -> None:
        done = run(settings, "model-card", *arguments, "--out", str(tmp_path / "card.md"))
        assert done.exit_code != 0 and message in str(done.exception)
        assert not (tmp_path / "card.md").exists()


class TestAudit:
    def test_a_line_is_there_if_its_transaction_is(self, store: Store) -> None:
        with store.transaction() as tx:
            record(tx, "os:a", "one.thing", "street", {"n": 1})
        with pytest.raises(RuntimeError), store.transaction() as tx:
            record(tx, "os:a", "another.thing")
            raise RuntimeError("half-way")
        assert [(line.who, line.what, line.subject, dict(line.detail)) for line in store.read_audit()] == [
            ("os:a", "one.thing", "street", {"n": 1})
        ]

    def test_commands_are_written_down(self, store: Store, settings: Settings) -> None:
        identity = store.active_baselines()["yard", "1"].meta.id
        store.close()
        assert run(settings, "baseline", "activate", identity[:12]).exit_code == 0
        (line,) = shown(settings, "audit", "--json")["lines"]
        assert (line["who"], line["what"], line["subject"]) == (os_user(), "baseline.activate", "yard")
        assert line["detail"] == {"version": "1", "baseline": identity}
        assert "baseline.activate" in run(settings, "audit").output

    def test_lines_can_be_chosen(self, store: Store, settings: Settings) -> None:
        for number in range(5):
            record(store, "os:a", f"kind.{number % 2}", str(number))
        assert [line.subject for line in store.read_audit(limit=2)] == ["3", "4"]
        assert [line.subject for line in store.read_audit(what="kind.1")] == ["1", "3"]
        later = store.read_audit()[2].at_us
        assert [line.subject for line in store.read_audit(since_us=later)] == ["2", "3", "4"]

    def test_a_line_goes_when_its_time_is_over(self, store: Store) -> None:
        record(store, "os:a", "old")
        leader = store.try_lead()
        assert leader is not None
        with leader:
            assert leader.forget_audit(store.read_audit()[0].at_us) == 0
            assert leader.forget_audit(store.read_audit()[0].at_us + 1) == 1
        assert store.read_audit() == []

    def test_a_name_from_a_header_cannot_forge_a_line(self) -> None:
        assert http_user({"x-forwarded-user": "a\nb\x1b[2J"}, token=True) == "http:ab[2J"
        assert http_user({"x-forwarded-user": "admin"}, token=False) == "http:loopback"


class TestRedaction:
    """What `redact` keeps from being stored."""

    def test_dropped_fields_are_nowhere(self, settings: Settings, tmp_path: Path) -> None:
        import msgspec

        from monitor.settings import RedactSettings
        from tests.test_purge import everything

        drop = RedactSettings(drop_fields=("slices.customer", "sequence"))
        redacting = msgspec.structs.replace(settings, redact=drop)
        slices = {"customer": "acme-corporation", "site": "berlin"}
        records = [image_record(n, EVENT_US, slices=slices, sequence="patient-zero") for n in (1, 2)]
        told = label(1, after(EVENT_US), ("dog", square(10)), input_id=INPUT, customer="acme-corporation")
        broken = {**image_record(3, EVENT_US, slices=slices), "status": 7}
        with open_store(redacting, ("yard",)) as store:
            feed(store, redacting, [encode(one) for one in (*records, told, broken)])
            left = everything(store)
            for secret in (b"acme-corporation", b"patient-zero", b"frame-000003"):
                assert secret not in left
            assert {one.slice for one in store.pane_extent()} == {"", "site=berlin"}
            sequences = {one["sequence"] for one in store.trace(INPUT, "segwatch.actions").samples}
            assert len(sequences) == 1 and all(one.startswith("redacted-") for one in sequences)
            (part,) = store.read_panes("yard", "1", slice="site=berlin")
            assert part.records == 2
            with store.claim_outbox(10) as claimed:
                (letter,) = claimed
            assert letter.key is None and json.loads(letter.value or b"")["redacted"] is True
            names = [name for name, _ in letter.headers]
            assert "segwatch_reason" in names and "segwatch_detail" not in names

    def test_two_workers_give_a_sequence_one_name_and_another_store_another(self, tmp_path: Path) -> None:
        from monitor.redact import KEY, Redaction
        from monitor.settings import RedactSettings

        drop = RedactSettings(drop_fields=("sequence",))
        found = []
        for folder in ("one", "other"):
            with open_store(settings_of(tmp_path / folder), ()) as store:
                found.append({Redaction(drop, store.key(KEY)).pseudonym("patient-zero") for _ in range(2)})
        assert [len(names) for names in found] == [1, 1] and found[0] != found[1]

    @pytest.mark.parametrize("field", ["input_id", "slices.", "slices", "image"])
    def test_what_cannot_be_dropped_is_refused(self, field: str) -> None:
        import msgspec

        with pytest.raises(msgspec.ValidationError, match=r"redact\.drop_fields"):
            msgspec.convert({"redact": {"drop_fields": [field]}}, Settings)
