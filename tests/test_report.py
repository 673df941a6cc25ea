"""``segwatch report``: counts as values, which window is meant, and Evidently's page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.baseline import BaselineStatistic
from detectors.binning import Binning
from detectors.layout import Layout
from detectors.statistic import PaneStatistic
from monitor import report_html
from monitor.errors import BaselineError, InputError
from monitor.evaluate import Evaluator
from monitor.report import (
    Comparison,
    apportioned,
    comparison,
    frame,
    parse_window,
    read_comparison,
    representatives,
)
from monitor.report_html import write_page
from monitor.settings import Settings
from monitor.sources.files import FileSource
from monitor.store.store import Store
from monitor.windows import Window, to_text
from tests.embedded import HOUR_US, NOW_US, add_baseline, ingest_of, open_store, run, settings_of
from tests.made_records import lines, predictions
from tests.real.component import unavailable

PANE_US = 300_000_000
AT = to_text(NOW_US - 2 * HOUR_US)
LAYOUT = Layout.stacked([("embedding", ["component_0", "component_1"]), ("class_mix", ["<other>", "constant"])])


def made(count: int, seed: int = 0) -> NDArray[np.float64]:
    """(count, 4): normal, heavy-tailed with a fifth missing, counts, a constant."""
    rng = np.random.default_rng(seed)
    values = np.column_stack(
        [rng.normal(size=count), rng.standard_cauchy(count), rng.poisson(1.0, count), np.full(count, 7.0)]
    )
    values[rng.random(count) < 0.2, 1] = np.nan
    return values


def counted(binning: Binning, values: NDArray[np.float64]) -> NDArray[np.int64]:
    statistic = PaneStatistic(binning.dimensions, binning.bins)
    statistic.add(binning.codes(values), [""] * len(values))
    return statistic.counts()


class TestRepresentatives:
    @given(
        st.lists(st.floats(-1e12, 1e12) | st.sampled_from([0.0, -0.0, 1.0, 5e-324, np.nan]), min_size=1, max_size=60),
        st.integers(2, 20),
    )
    def test_each_lies_in_its_own_bin(self, values: list[float], bins: int) -> None:
        binning = Binning.fit(np.array(values)[:, None], bins)
        (row,) = representatives(binning)
        used = int(np.isfinite(binning.edges[0]).sum()) + 1
        assert binning.codes(row[:used, None]).ravel().tolist() == list(range(used))
        assert np.isnan(row[used:]).all()

    def test_a_constant_stands_for_itself_and_what_moved_away_from_it_is_elsewhere(self) -> None:
        binning = Binning.fit(np.full((50, 1), 7.0), bins=4)
        assert representatives(binning)[0, :3] == pytest.approx([3.5, 7.0, 10.5])

    def test_counts_stand_for_themselves(self) -> None:
        values = np.repeat([0.0, 1.0, 2.0], 20)[:, None]
        binning = Binning.fit(values, bins=16)
        assert frame(Layout.stacked([("instances", ["count"])]), binning, counted(binning, values)).keys() == {
            "instances: count"
        }
        assert set(representatives(binning)[0, binning.codes(values).ravel()]) == {0.0, 1.0, 2.0}

    def test_edges_as_large_as_numbers_go_do_not_overflow(self) -> None:
        big = float(np.finfo(np.float64).max)
        (row,) = representatives(Binning(np.array([[-big / 2, 0.0, big / 2, big]])))
        assert np.isfinite(row[:-1]).all()


class TestApportioned:
    @given(st.lists(st.integers(0, 10**7), min_size=1, max_size=40), st.integers(1, 5000))
    def test_it_adds_up_and_no_share_is_off_by_a_row(self, counts: list[int], rows: int) -> None:
        total = sum(counts)
        scaled = apportioned(np.array(counts), rows)
        assert scaled.sum() == min(total, rows)
        if total > rows:
            assert (np.abs(scaled - np.array(counts) * rows / total) < 1).all()


class TestFrame:
    def test_counted_again_it_gives_the_same_counts(self) -> None:
        binning = Binning.fit(made(2000), 16)
        counts = counted(binning, made(700, seed=1))
        columns = frame(LAYOUT, binning, counts)
        assert list(columns) == [
            "embedding: component_0",
            "embedding: component_1",
            "class_mix: ‹other›",
            "class_mix: constant",
        ]
        assert (counted(binning, np.column_stack(list(columns.values()))) == counts).all()

    def test_more_records_than_rows_keep_their_shares_and_their_missing_ones(self) -> None:
        binning, values = Binning.fit(made(2000), 16), made(30_000, seed=2)
        columns = frame(LAYOUT, binning, counted(binning, values), rows=5000)
        again = counted(binning, np.column_stack(list(columns.values())))
        assert (np.abs(again / 5000 - counted(binning, values) / 30_000) < 1 / 5000).all()
        missing = np.isnan(columns["embedding: component_1"]).mean()
        assert missing == pytest.approx(np.isnan(values[:, 1]).mean(), abs=1 / 5000)
        assert missing > 0.15

    @pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
    def test_quantiles_are_right_to_the_bin(self, share: float) -> None:
        binning, values = Binning.fit(made(2000), 16), made(900, seed=3)
        columns = frame(LAYOUT, binning, counted(binning, values))
        shown = np.column_stack(list(columns.values()))
        true, found = (np.nanquantile(side, share, axis=0, method="inverted_cdf") for side in (values, shown))
        assert binning.codes(true[None]).tolist() == binning.codes(found[None]).tolist()

    def test_there_is_no_trend_over_the_rows_and_none_between_columns(self) -> None:
        values = np.repeat(np.random.default_rng(4).normal(size=(4000, 1)), 4, axis=1)
        binning = Binning.fit(values, 16)
        columns = list(frame(LAYOUT, binning, counted(binning, values)).values())
        together = np.corrcoef([np.arange(4000.0), *columns])
        assert np.abs(together - np.eye(5)).max() < 4.5 / np.sqrt(4000)  # four and a half standard errors

    def test_no_column_takes_anothers_place(self) -> None:
        layout = Layout.stacked([("class_mix", ["<a>", "‹a›"])])
        binning = Binning.fit(made(50)[:, :2], 4)
        assert list(frame(layout, binning, counted(binning, made(50)[:, :2]))) == [
            "class_mix: ‹a›",
            "class_mix: ‹a›'",
        ]


class TestComparison:
    @pytest.fixture
    def compared(self, store: Store, settings: Settings) -> Comparison:
        """A window whose first column is broken; the fourth has no value on either side."""
        scored = read_comparison(store, settings, model="street", version=None, slice_key="", window="last").scored
        values = made(600)
        values[:, 3] = np.nan
        baseline = BaselineStatistic.fit(LAYOUT, values, [""] * 600)
        broken = values[:100].copy()
        broken[:, 0] = np.nan
        window = PaneStatistic(4, baseline.binning.bins)
        window.add(baseline.binning.codes(broken), [""] * 100)
        return comparison(scored, baseline, window)

    def test_columns_without_anything_to_compare_are_left_out(self, compared: Comparison) -> None:
        assert compared.left_out == ("embedding: component_0",)
        assert list(compared.window) == list(compared.baseline) == ["embedding: component_1", "class_mix: ‹other›"]
        assert {len(column) for column in compared.window.values()} == {100}
        assert {len(column) for column in compared.baseline.values()} == {600}

    def test_the_verdict_stands_above_and_nothing_in_it_is_markup(
        self, compared: Comparison, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report_html, "_evidently", lambda _: "<html><head></head><body><p>below</p></body></html>")
        scored = compared.scored
        object.__setattr__(scored, "model", "<b>street</b>")
        page = report_html.report_html(compared)
        assert "<b>" not in page
        assert page.index("Verdict of segwatch") < page.index("<p>below")
        assert "no stated false-alarm rate" in page
        assert "do not correspond to records" in re.sub(r"\s+", " ", page)
        assert scored.score is not None
        for one in scored.score.scores:
            assert f"<td>{one.signal}</td><td>{one.p_value:.3g}</td><td>{one.js:.3g}</td>" in page


class TestWindow:
    @pytest.mark.parametrize(
        ("text", "hours"),
        [
            ("1970-01-01T08:00:00Z", (8, 9)),
            ("1970-01-01T08:00:00Z/24h", (8, 32)),
            ("1970-01-01T08:00:00Z/1970-01-01T10:30:00Z", (8, 10.5)),
            ("1970-01-01T08:00:00+02:00/1970-01-02", (6, 24)),
        ],
    )
    def test_a_start_with_an_end_a_length_or_neither(self, text: str, hours: tuple[float, float]) -> None:
        begin, end = (round(hour * HOUR_US) for hour in hours)
        assert parse_window(text, HOUR_US, PANE_US) == Window(begin, end)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("yesterday", "is no time"),
            ("2026-11-23T08:00:00", "time zone"),
            ("2026-11-23T08:00:00Z/", "no length"),
            ("2026-11-23T08:00:00Z/soon", "no length"),
            ("2026-11-23T08:00:00Z/2026-11-23T08:00:00Z", "ends before it begins"),
            ("2026-11-23T08:01:00Z", "multiple of the pane"),
            ("2026-11-23T08:00:00Z/90s", "multiple of the pane"),
            ("9999-12-31T23:30:00Z", "year 9999"),
        ],
    )
    def test_anything_else_is_refused_by_name(self, text: str, why: str) -> None:
        with pytest.raises(InputError, match=f"^--window: .*{why}"):
            parse_window(text, HOUR_US, PANE_US)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings_of(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[Store]:
    """Three hours of 40 records, the second one shifted; a version 2 without a baseline in the last one."""
    file = Path(settings.data_dir) / "records.jsonl"
    parts = [
        lines(predictions(40, NOW_US - (3 - hour) * HOUR_US, 1, first=1000 * hour, shift=2.0 if hour == 1 else 0.0))
        for hour in range(3)
    ]
    parts.append(lines(predictions(10, NOW_US - HOUR_US, 1, first=9000, version="2")))
    with open_store(settings) as opened:
        file.write_bytes(b"".join(parts))
        run(ingest_of(opened, settings), FileSource([file], 1 << 20))
        evaluator = Evaluator(opened, settings, wall_us=lambda: NOW_US)
        evaluator.finish()
        evaluator.close()
        yield opened


def asked(
    store: Store,
    settings: Settings,
    window: str,
    *,
    model: str = "street",
    version: str | None = None,
    slice_key: str = "",
) -> Comparison:
    return read_comparison(store, settings, model=model, version=version, slice_key=slice_key, window=window)


class TestWhichWindow:
    def test_the_last_one_the_one_with_the_last_alarm_and_one_by_name(self, store: Store, settings: Settings) -> None:
        for text, hours_ago, alarm in (("last", 1, False), ("last-alarm", 2, True), (AT, 2, True)):
            found = asked(store, settings, text).scored
            assert found.window == Window(NOW_US - hours_ago * HOUR_US, NOW_US - (hours_ago - 1) * HOUR_US), text
            assert found.score is not None and found.score.alarm is alarm, text
            assert (found.records, found.version) == (40, "1")

    def test_it_gets_the_verdict_that_was_stored(self, store: Store, settings: Settings) -> None:
        stored = [one for one in store.scores("street", "1", length_us=HOUR_US) if one.start_us == NOW_US - 2 * HOUR_US]
        found = asked(store, settings, AT).scored
        assert found.to_json()["slices"]
        assert len(stored) == 1 and f'"alpha":{found.to_json()["alpha"]!r}'.encode() in stored[0].payload

    def test_any_span_of_panes_and_any_slice(self, store: Store, settings: Settings) -> None:
        whole = asked(store, settings, f"{to_text(NOW_US - 3 * HOUR_US)}/{to_text(NOW_US)}")
        assert whole.scored.records == 120
        assert {len(column) for column in whole.window.values()} == {120}
        slice_of = asked(store, settings, AT, slice_key="camera=1")
        assert slice_of.scored.slice == "camera=1"
        assert slice_of.baseline_records < whole.baseline_records

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"model": "strete"}, "'strete'.*no baseline and no records"),
            ({"version": "7"}, "no version '7', but 1, 2"),
            ({"version": "2"}, "no active baseline of version '2'"),
            ({"window": "2001-01-01T00:00:00Z"}, "no records from 2001-01-01T00:00:00Z.*begin from 2026"),
            ({"slice_key": "camera=9"}, "slice camera=9: no records"),
            ({"slice_key": "camera=9", "window": "last-alarm"}, "no alarm yet"),
        ],
    )
    def test_one_that_is_not_there_is_named(
        self, store: Store, settings: Settings, given: dict[str, str], why: str
    ) -> None:
        with pytest.raises(InputError, match=why):
            asked(store, settings, **{"window": AT, **given})

    def test_a_slice_that_the_baseline_does_not_know(self, store: Store, settings: Settings) -> None:
        with Store.open(settings_of(Path(settings.data_dir) / "more"), write=True) as other:
            add_baseline(other, "street")
            new = predictions(5, NOW_US - 2 * HOUR_US, 1, slices={"camera": "new"})
            file = Path(settings.data_dir) / "new.jsonl"
            file.write_bytes(lines(new))
            run(ingest_of(other, settings), FileSource([file], 1 << 20))
            with pytest.raises(BaselineError, match="has no slice 'camera=new'"):
                asked(other, settings, AT, slice_key="camera=new")

    def test_two_versions_with_a_baseline_are_told_apart_by_name(self, settings: Settings) -> None:
        with Store.open(settings_of(Path(settings.data_dir) / "two"), write=True) as other:
            for version in ("1", "2"):
                add_baseline(other, "street", version)
                file = Path(settings.data_dir) / "two.jsonl"
                file.write_bytes(lines(predictions(10, NOW_US - 2 * HOUR_US, 1, version=version)))
                run(ingest_of(other, settings), FileSource([file], 1 << 20))
            with pytest.raises(InputError, match="versions 1, 2: choose one with --version"):
                asked(other, settings, AT)
            assert asked(other, settings, AT, version="2").scored.version == "2"


class TestWriting:
    def test_the_file_is_whole_or_as_it_was(self, tmp_path: Path) -> None:
        file = tmp_path / "page.html"
        write_page(file, lambda: "first")

        def fails() -> str:
            assert file.read_text() == "first"
            raise RuntimeError("no page")

        with pytest.raises(RuntimeError, match="no page"):
            write_page(file, fails)
        assert file.read_text() == "first"
        write_page(file, lambda: "second")
        assert file.read_text() == "second"
        assert list(tmp_path.iterdir()) == [file]

    def test_what_a_link_points_to_is_replaced_and_not_the_link(self, tmp_path: Path) -> None:
        (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
        write_page(tmp_path / "link.html", lambda: "page")
        assert (tmp_path / "link.html").is_symlink()
        assert (tmp_path / "real.html").read_text() == "page"

    @pytest.mark.parametrize("name", ["nowhere/page.html", "file/page.html", "x" * 250, "pipe"])
    def test_a_path_that_cannot_be_written_is_named_before_the_work(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(InputError, match=name):
            write_page(tmp_path / name, lambda: pytest.fail("worked for nothing"))


class Links(HTMLParser):
    """Every address that a page's tags name, and its policy."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""


@pytest.mark.slow
class TestEvidently:
    PROGRAM = (
        "import socket, sys\n"
        "def refuse(*_): raise RuntimeError('a report asks nobody')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from monitor.cli import main; main()"
    )

    def command(self, settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
        """In a process of its own: Evidently changes numpy for all who share one."""
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SEGWATCH_DATA_DIR": settings.data_dir}
        return subprocess.run(
            [sys.executable, "-c", self.PROGRAM, "report", "--model", "street", *arguments],
            capture_output=True,
            text=True,
            env=environ,
            check=False,
            timeout=300,
        )

    def test_a_real_report_has_every_column_and_needs_no_other_file(
        self, store: Store, settings: Settings, tmp_path: Path
    ) -> None:
        if find_spec("evidently") is None:
            unavailable("Evidently", "the extra 'report' is not installed")
        expected = asked(store, settings, AT)
        done = self.command(settings, "--window", AT, "--out", str(tmp_path / "page.html"))
        assert (done.returncode, done.stderr) == (0, "")
        assert "40 records, alarm" in done.stdout
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        embedding = {name for name in expected.window if name.startswith("embedding: ")}
        assert len(embedding) == 16
        for name in expected.window:
            assert name.encode("ascii", "backslashreplace").decode() in page, name
        assert "Wasserstein distance" in page
        assert "Verdict of segwatch" in page
        links = Links()
        links.feed(page)
        assert links.addresses == []
        assert not re.findall(r"url\((?!data:)[^)]{0,40}", page[: page.index("<script")])
        assert "default-src 'none'" in links.policy

    def test_the_command_says_what_is_wrong_in_one_line(self, store: Store, settings: Settings, tmp_path: Path) -> None:
        for arguments, why in (
            (["--window", "2001-01-01T00:00:00Z", "--out", "page.html"], "no records"),
            (["--window", AT, "--out", "nowhere/page.html"], "nowhere/page.html"),
            (["--window", "soon", "--out", "page.html"], "--window"),
        ):
            done = self.command(settings, *arguments)
            assert done.returncode == 2
            assert len(done.stderr.splitlines()) == 1 and why in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_nothing_but_rendering_loads_evidently(self) -> None:
        program = (
            "import sys, monitor.cli, monitor.report, monitor.report_html\n"
            "print([m for m in ('evidently', 'plotly', 'torch') if m in sys.modules])"
        )
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        assert subprocess.check_output([sys.executable, "-c", program], text=True, env=environ, timeout=60) == "[]\n"
