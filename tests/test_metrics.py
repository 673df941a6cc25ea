"""/metrics: read by other people's parsers, and by promtool."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from monitor.exposition import Distribution, Family, Series, Writer, accepts_openmetrics
from monitor.metrics import (
    ALARM,
    CONFIDENCE,
    FAMILIES,
    VERSIONS_PER_MODEL,
    WINDOW_RECORDS,
    BaselineFact,
    DriftReading,
    SignalReading,
    Totals,
    families,
)
from monitor.records.reasons import REASONS
from monitor.scrape import MetricsPage
from monitor.settings import Settings
from monitor.snapshot import snapshot
from monitor.store.store import Store
from monitor.store.values import DueWindow, EarlyReading, EarlyState, ScoreRow
from monitor.tallies import OUTCOMES, RECORDS, TallyKey, bucket_of
from tests.real.component import unavailable
from tests.seeded_store import HOSTILE, HOUR_US, NOW_US, seed

Labels = tuple[tuple[str, str], ...]


@pytest.fixture
def totals(tmp_path: Path) -> Iterator[Totals]:
    with Store.open(Settings(data_dir=str(tmp_path)), write=True, clock=lambda: NOW_US) as store:
        seed(store)
        yield snapshot(store, HOUR_US, NOW_US, 200)


def page_of(totals: Totals, limit: int = 20_000) -> str:
    return Writer().render(families(totals, limit)).openmetrics.decode()


def samples(text: str) -> dict[tuple[str, Labels], float]:
    found: dict[tuple[str, Labels], float] = {}
    for family in parse_openmetrics(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def test_the_page_says_what_the_store_holds(totals: Totals) -> None:
    found = samples(page_of(totals))
    street = (("model", "street"), ("version", "3"))
    assert found["segwatch_records_total", (street[0], ("outcome", "ok"), street[1])] == 7
    assert found["segwatch_records_total", (street[0], ("outcome", "duplicate"), street[1])] == 2
    assert found["segwatch_cost_usd_total", street] == 0.00147
    assert found["segwatch_inference_latency_seconds_count", street] == 7
    assert found["segwatch_inference_latency_seconds_sum", street] == 60.5
    assert found["segwatch_inference_latency_seconds_bucket", (("le", "0.05"), *street)] == 0
    assert found["segwatch_inference_latency_seconds_bucket", (("le", "0.1"), *street)] == 6
    assert found["segwatch_inference_latency_seconds_bucket", (("le", "10.0"), *street)] == 6
    assert found["segwatch_inference_latency_seconds_bucket", (("le", "+Inf"), *street)] == 7
    assert found["segwatch_last_event_timestamp_seconds", street] == NOW_US / 1e6 - 30
    assert found["segwatch_baseline_created_timestamp_seconds", street] == NOW_US / 1e6
    assert found["segwatch_dead_letter_records_total", (("reason", "not_json"),)] == 1
    assert found["segwatch_dropped_records_total", (("reason", "retention"),)] == 5
    partition = (("partition", "0"), ("topic", "segwatch.predictions"))
    assert found["segwatch_consumer_lag_records", partition] == 4
    assert found["segwatch_consumer_lag_seconds", partition] == 30
    assert found["segwatch_consumer_offset", partition] == 16


def test_the_newest_window_is_the_one_that_is_exported(totals: Totals) -> None:
    found = samples(page_of(totals))
    labels = (("model", "street"), ("signal", "embedding"), ("slice", ""), ("version", "3"))
    assert found["segwatch_drift_divergence_ratio", (("method", "js"), *labels)] == 0.31
    assert found["segwatch_drift_kl_nats", labels] == 0.7
    assert found["segwatch_drift_p_value", labels] == 0.0002
    assert found["segwatch_drift_alarm", labels] == 1
    window = (("model", "street"), ("slice", ""), ("version", "3"))
    assert found["segwatch_last_drift_window_timestamp_seconds", window] == NOW_US / 1e6
    assert found["segwatch_drift_window_records", window] == 5


def test_the_sequential_test_is_exported_for_the_active_baseline(tmp_path: Path) -> None:
    with Store.open(Settings(data_dir=str(tmp_path)), write=True, clock=lambda: NOW_US) as store:
        seed(store)
        leader = store.try_lead()
        assert leader is not None
        with leader:
            of_another = EarlyState("street", "3", "zzz", NOW_US, 9, 1.0, 1.0, False, None, b"")
            leader.record_early(of_another)
            leader.record_early(replace(of_another, version="4"))
        found = samples(page_of(snapshot(store, HOUR_US, NOW_US, 200)))
    street = (("model", "street"), ("version", "3"))
    assert found["segwatch_drift_evidence_records", street] == 12.5
    assert found["segwatch_drift_run_length_records", street] == 43_200
    assert found["segwatch_drift_early_alarm", street] == 1
    assert found["segwatch_last_early_alarm_timestamp_seconds", street] == NOW_US / 1e6 - 300
    early = ("evidence", "run_length", "early")
    assert not any(part in name for name, labels in found if dict(labels).get("version") == "4" for part in early)


def test_a_test_that_never_alarmed_shows_0_and_no_time(totals: Totals) -> None:
    (reading,) = totals.early.values()
    quiet = replace(reading, alarm=False, alarm_at_us=None, last_alarm=None)
    found = samples(page_of(replace(totals, early={("street", "3"): quiet})))
    assert found["segwatch_drift_early_alarm", (("model", "street"), ("version", "3"))] == 0
    assert not any(name == "segwatch_last_early_alarm_timestamp_seconds" for name, _ in found)


def test_a_signal_without_a_verdict_shows_no_alarm_series_rather_than_a_green_one(totals: Totals) -> None:
    found = samples(page_of(totals))
    signals = {dict(labels)["signal"] for name, labels in found if name == ALARM.name}
    assert signals == {"embedding"}


def test_series_exist_at_0_for_every_expected_label(totals: Totals) -> None:
    found = samples(page_of(totals))
    for model, version in (("street", "3"), ("street", "4"), ("", "")):
        for outcome in OUTCOMES:
            labels = (("model", model), ("outcome", outcome), ("version", version))
            assert ("segwatch_records_total", labels) in found
    for reason in REASONS:
        assert ("segwatch_dead_letter_records_total", (("reason", reason),)) in found
    person = (("class", "person"), ("model", "street"), ("version", "3"))
    assert found["segwatch_confidence_ratio_count", person] == 0
    assert found["segwatch_confidence_ratio_count", (("class", "car"), *person[1:])] == 3


def test_a_version_without_a_baseline_is_counted_and_has_no_drift_series(totals: Totals) -> None:
    found = samples(page_of(totals))
    names = {name for name, labels in found if dict(labels).get("version") == "4"}
    assert "segwatch_records_total" in names
    assert not any("drift" in name for name in names)


def test_every_replica_that_reads_the_same_totals_serves_the_same_page(totals: Totals) -> None:
    shuffled = replace(
        totals,
        tallies=dict(reversed(list(totals.tallies.items()))),
        drift=list(reversed(totals.drift)),
        baselines=list(reversed(totals.baselines)),
    )
    assert page_of(shuffled) == page_of(totals)


def test_both_formats_say_the_same(totals: Totals) -> None:
    page = Writer().render(families(totals, 20_000))
    classic = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_classic(page.classic.decode())
        for sample in family.samples
    }
    assert classic == samples(page.openmetrics.decode())


def test_a_hostile_slice_comes_through_as_it_was(totals: Totals) -> None:
    slices = {dict(labels).get("slice") for _, labels in samples(page_of(totals))}
    assert f"camera={HOSTILE}" in slices


def test_promtool_finds_nothing_to_complain_of(totals: Totals) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
    page = Writer().render(families(totals, 20_000))
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page.classic, capture_output=True, timeout=30, check=False
    )
    assert checked.returncode == 0, checked.stderr.decode()
    assert checked.stderr == b""


def test_the_limit_cuts_slices_first_then_classes_and_never_the_service(totals: Totals) -> None:
    everything = samples(page_of(totals))
    without_slices = len([1 for _, labels in everything if not dict(labels).get("slice")])
    found = samples(page_of(totals, without_slices))
    assert len(found) == without_slices
    assert not any(dict(labels).get("slice") for _, labels in found)
    assert any(name.startswith(CONFIDENCE.name) for name, _ in found)
    assert found["segwatch_omitted_series", ()] == len(everything) - without_slices

    from_labels = ("segwatch_spotcheck", "segwatch_label_", "segwatch_annotator")
    of_labels = len([1 for name, _ in everything if name.startswith(from_labels)])
    found = samples(page_of(totals, without_slices - 1))
    assert len([1 for name, _ in found if name == "segwatch_confidence_ratio_count"]) == 2
    found = samples(page_of(totals, without_slices - of_labels - 1))
    assert not any(name.startswith("segwatch_spotcheck") for name, _ in found)
    assert len([1 for name, _ in found if name == "segwatch_confidence_ratio_count"]) == 1
    assert ("segwatch_consumer_lag_records", (("partition", "0"), ("topic", "segwatch.predictions"))) in found


@given(limit=st.integers(60, 400))
def test_no_page_is_longer_than_its_limit_and_it_knows_its_own_length(limit: int) -> None:
    totals = Totals(NOW_US, {TallyKey(RECORDS, "m", str(version), "ok", 0): 1 for version in range(30)})
    found = samples(page_of(totals, limit))
    assert len(found) <= limit
    assert found["segwatch_exported_series", ()] == len(found)
    assert len(samples(page_of(totals, 10**6))) == len(found) + found["segwatch_omitted_series", ()]


def test_versions_beyond_the_newest_are_left_out_and_that_is_said() -> None:
    versions = [str(version) for version in range(VERSIONS_PER_MODEL + 3)]
    totals = Totals(
        NOW_US,
        {TallyKey(RECORDS, "m", version, "ok", 0): 1 for version in versions},
        {("m", version): NOW_US + int(version) for version in versions},
    )
    found = samples(page_of(totals))
    exported = {dict(labels)["version"] for name, labels in found if name == "segwatch_cost_usd_total"}
    assert exported == set(versions[3:])
    assert found["segwatch_omitted_versions", (("model", "m"),)] == 3


def test_of_a_slice_key_with_many_values_the_first_are_shown_and_the_number_of_the_others(tmp_path: Path) -> None:
    slices = ["", "camera=1", "camera=2", *(f"a_request={number:04}" for number in range(1000))]
    with Store.open(Settings(data_dir=str(tmp_path)), write=True, clock=lambda: NOW_US) as store:
        leader = store.try_lead()
        assert leader is not None
        with leader:
            for number, name in enumerate(slices):
                score = ScoreRow(number, None, b'{"scores": []}', NOW_US)
                leader.record_score(DueWindow("m", "1", name, HOUR_US, NOW_US, "b", 1), score)
        totals = snapshot(store, HOUR_US, NOW_US, 3)
    expected = {"", "a_request=0000", "a_request=0001", "a_request=0002", "camera=1", "camera=2"}
    assert {reading.slice for reading in totals.drift} == expected
    found = samples(page_of(totals))
    assert found["segwatch_omitted_slices", (("model", "m"),)] == 997
    assert {dict(labels)["slice"] for name, labels in found if name == WINDOW_RECORDS.name} == expected


def test_a_model_version_costs_what_the_docs_say() -> None:
    classes = tuple(f"class-{number}" for number in range(20))
    signals = tuple(SignalReading(f"signal-{number}", 0.1, 0.1, 0.1, False) for number in range(4))
    empty = len(samples(page_of(Totals(NOW_US))))
    slices = ["", *(f"camera={number}" for number in range(50))]
    totals = Totals(
        NOW_US,
        {},
        {("m", "1"): NOW_US},
        [DriftReading("m", "1", name, NOW_US, 10, signals, harm=None if name else "likely") for name in slices],
        (),
        [BaselineFact("m", "1", NOW_US, classes)],
        early={("m", "1"): EarlyReading("m", "1", "b", NOW_US, 9, 1.0, 9.0, True, NOW_US, b"{}")},
    )
    of_model = 4  # versions and slices that are left out, and the relabel queue's two states
    assert len(samples(page_of(totals))) == empty + of_model + 1710
    of_a_service = 9  # topics, the leader's time, the oldest message, the web process
    assert empty + of_a_service == pytest.approx(62, abs=2)


def test_an_empty_store_has_a_page_too() -> None:
    found = samples(page_of(Totals(NOW_US)))
    assert found["segwatch_records_total", (("model", ""), ("outcome", "ok"), ("version", ""))] == 0


def test_a_readers_window_scores_of_another_length_do_not_leak_in(tmp_path: Path) -> None:
    with Store.open(Settings(data_dir=str(tmp_path)), write=True, clock=lambda: NOW_US) as store:
        seed(store)
        assert snapshot(store, 24 * HOUR_US, NOW_US, 200).drift == []


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(values=st.lists(text, min_size=1, max_size=5, unique=True), number=st.floats(allow_nan=False))
def test_any_label_value_and_any_number_survive_the_format(values: list[str], number: float) -> None:
    gauge = Family("g", "gauge", 'Help with "quotes", \\ and\nlines.', ("a",))
    page = Writer().render([(gauge, [Series((value,), number) for value in values])])
    for parsed in (parse_openmetrics(page.openmetrics.decode()), parse_classic(page.classic.decode())):
        (family,) = parsed
        assert family.documentation == gauge.help
        assert [(sample.labels["a"], sample.value) for sample in family.samples] == [(v, number) for v in values]


@given(counts=st.lists(st.integers(0, 2**53), min_size=4, max_size=4), total=st.floats(0, 1e15))
def test_a_histogram_is_cumulative_in_any_reader(counts: list[int], total: float) -> None:
    histogram = Family("h", "histogram", "H.", (), bounds=(0.1, 1.0, 20.0))
    page = Writer().render([(histogram, [Series((), Distribution(counts, total))])])
    (family,) = parse_openmetrics(page.openmetrics.decode())
    by_name = defaultdict(list)
    for sample in family.samples:
        by_name[sample.name].append(sample.value)
    assert by_name["h_bucket"] == [sum(counts[: i + 1]) for i in range(4)]
    assert by_name["h_count"] == [sum(counts)]
    assert by_name["h_sum"] == [total]


@given(value=st.floats(0, 20))
def test_a_value_is_in_the_bucket_that_prometheus_puts_it_in(value: float) -> None:
    bounds = (0.1, 1.0, 10.0)
    index = bucket_of(value, bounds)
    assert [value <= bound for bound in bounds] == [i >= index for i in range(3)]


def test_the_wrong_number_of_labels_is_refused_by_name() -> None:
    gauge = Family("g", "gauge", "G.", ("a", "b"))
    with pytest.raises(ValueError, match=r"g has labels \('a', 'b'\), got 1 values"):
        Writer().render([(gauge, [Series(("x",), 1)])])


def test_what_prometheus_2_and_3_ask_for_is_openmetrics() -> None:
    # Copied from the scrape loops of Prometheus 2.42 and 3.5.
    assert accepts_openmetrics(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    )
    assert accepts_openmetrics(
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
        "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
        "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    )
    assert not accepts_openmetrics("text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert not accepts_openmetrics("")


def test_names_of_metrics_are_unique_and_prefixed() -> None:
    names = [family.series_name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert all(name.startswith("segwatch_") for name in names)


class TestThePageInASingleProcess:
    def test_it_is_kept_for_as_long_as_the_setting_says(self) -> None:
        now, reads = [100.0], [0]

        def read() -> Totals:
            reads[0] += 1
            return Totals(NOW_US + reads[0])

        page = MetricsPage(read, lambda: 1000, lambda: 5.0, monotonic=lambda: now[0])
        first = page.get("openmetrics")
        now[0] += 4.9
        assert page.get("openmetrics") == first
        now[0] += 0.2
        assert page.get("openmetrics") != first
        assert reads[0] == 2

    def test_a_store_that_is_away_gives_an_error_and_not_an_old_page(self) -> None:
        now, broken = [0.0], [False]

        def read() -> Totals:
            if broken[0]:
                raise OSError("no route")
            return Totals(NOW_US)

        page = MetricsPage(read, lambda: 1000, lambda: 1.0, monotonic=lambda: now[0])
        page.get("classic")
        broken[0], now[0] = True, 2.0
        with pytest.raises(OSError, match="no route"):
            page.get("classic")
        broken[0] = False
        assert page.get("classic").startswith(b"# HELP")

    def test_scrapes_at_the_same_time_share_one_reading(self) -> None:
        reads = []

        def read() -> Totals:
            reads.append(1)
            return Totals(NOW_US)

        page = MetricsPage(read, lambda: 1000, lambda: 60.0)
        threads = [threading.Thread(target=page.get, args=("openmetrics",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(reads) == 1

    def test_the_process_is_left_as_it_was(self) -> None:
        def broken() -> Totals:
            raise OSError("no route")

        before = sys.getswitchinterval(), gc.isenabled()
        with pytest.raises(OSError, match="no route"):
            MetricsPage(broken, lambda: 1000, lambda: 0.0).get("classic")
        assert (sys.getswitchinterval(), gc.isenabled()) == before

    def test_a_change_between_two_pages_shows(self) -> None:
        readings = iter([0.1, 0.2])

        def read() -> Totals:
            signal = SignalReading("embedding", next(readings), None, None, None)
            return Totals(NOW_US, drift=[DriftReading("m", "1", "", NOW_US, 10, (signal,))])

        page = MetricsPage(read, lambda: 1000, lambda: 0.0)
        key = "segwatch_drift_divergence_ratio", tuple(
            sorted({"model": "m", "version": "1", "slice": "", "signal": "embedding", "method": "js"}.items())
        )
        values = [samples(page.get("openmetrics").decode())[key] for _ in range(2)]
        assert values == [0.1, 0.2]
