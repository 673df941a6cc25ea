"""The command line: good input, bad input, one clear line for each error, and an exit code that says which kind."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from monitor.cli import main
from monitor.version import __version__
from tests.embedded import HOUR_US, NOW_US, encode, eventually
from tests.made_records import lines, prediction, predictions
from tests.real.component import free_ports
from tests.test_drift_view import KEYS, SCORE_KEYS

COMMANDS = [
    "",
    "demo",
    "doctor",
    "baseline",
    "baseline build",
    "baseline list",
    "baseline show",
    "baseline activate",
    "run",
    "replay",
    "report",
    "topics",
    "topics create",
    "publish",
    "status",
    "drift",
    "backbone",
    "backbone export",
]
ENTRY = "from monitor.cli import main; main()"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


Segwatch = Callable[..., Done]


@pytest.fixture
def segwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Segwatch]:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGWATCH_EMBEDDING_BACKBONE", "segmenter")
    monkeypatch.setenv("SEGWATCH_EMBEDDING_INPUT_SIZE", "64")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def command(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["segwatch", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, captured.out, captured.err)

    yield command
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


class Once:
    """What a fixture has made in its folder, copied for every further test that asks for it."""

    def __init__(self) -> None:
        self._made: tuple[Path, Done] | None = None

    def get(self, folder: Path, keep: Path, make: Callable[[], Done]) -> Done:
        if self._made is None:
            done = make()
            assert done.code == 0, done.err
            shutil.copytree(folder, keep / "made")
            self._made = keep / "made", done
        else:
            shutil.copytree(self._made[0], folder, dirs_exist_ok=True)
        return self._made[1]


BUILT, REPLAYED = Once(), Once()


@pytest.fixture
def built(segwatch: Segwatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The answer of ``baseline build --activate --json`` for model street."""

    def make() -> Done:
        train = predictions(300, NOW_US - 50 * HOUR_US, 20, first=500_000)
        (tmp_path / "train.jsonl").write_bytes(lines(train))
        return segwatch(*"baseline build --model street --version 1 --records train.jsonl --activate --json".split())

    return BUILT.get(tmp_path, tmp_path_factory.mktemp("built"), make)


@pytest.fixture
def replayed(segwatch: Segwatch, built: Done, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The answer of ``replay --json`` for two hours, the second one shifted, a repeat and two bad lines."""

    def make() -> Done:
        first = predictions(40, NOW_US - 2 * HOUR_US, 1)
        second = predictions(40, NOW_US - HOUR_US, 1, first=100, shift=2.0)
        values = [encode(record) for record in (*first, *second)]
        (tmp_path / "day.jsonl").write_bytes(b"\n".join([*values, values[0], b"{", b"[1]"]) + b"\n")
        return segwatch("replay", "day.jsonl", "--json")

    return REPLAYED.get(tmp_path, tmp_path_factory.mktemp("replayed"), make)


def in_a_process(folder: Path, *arguments: str, program: str = ENTRY, **environ: str) -> Done:
    """A command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(**environ),
        check=False,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def one_line(done: Done) -> str:
    """The error's line; fails where there is more than one, or a traceback."""
    shown = done.err.splitlines()
    assert len(shown) == 1, done.err
    assert shown[0].startswith("segwatch: ")
    assert "Traceback" not in done.err
    return shown[0]


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_says_what_it_does(self, segwatch: Segwatch, command: str) -> None:
        done = segwatch(*command.split(), "--help")
        assert done.code == 0
        assert done.out.startswith("Usage: segwatch" + (f" {command}" if command else ""))
        assert len(done.out.splitlines()) >= 5
        assert done.err == ""

    def test_the_version_is_semver(self, segwatch: Segwatch) -> None:
        done = segwatch("--version")
        assert done.code == 0
        assert done.out.split()[-1] == __version__
        assert [part.isdigit() for part in __version__.split("+")[0].split("-")[0].split(".")] == [True] * 3

    def test_an_unknown_command_or_option_is_named(self, segwatch: Segwatch) -> None:
        for arguments, named in ((["nonsense"], "nonsense"), (["status", "--nonsense"], "--nonsense")):
            done = segwatch(*arguments)
            assert done.code == 2
            assert named in one_line(done)


class TestStart:
    @pytest.mark.parametrize(
        "command", ["--version", "--help", "drift --help", "status", "baseline list", "drift --model street"]
    )
    def test_commands_that_embed_nothing_load_no_network_library(
        self, built: Done, tmp_path: Path, command: str
    ) -> None:
        program = (
            "import atexit, sys; from monitor.cli import main\n"
            "atexit.register(lambda: print('heavy:', [m for m in ('torch', 'cv2', 'fastapi') if m in sys.modules]))\n"
            "main()"
        )
        done = in_a_process(tmp_path, *command.split(), program=program)
        assert done.code == 0, done.err
        assert done.out.splitlines()[-1] == "heavy: []"


class TestSettings:
    def test_a_settings_file_that_is_missing_is_named(self, segwatch: Segwatch) -> None:
        done = segwatch("--config", "nowhere.yaml", "status")
        assert done.code == 2
        assert "nowhere.yaml" in one_line(done)

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("windws: {}", "windws"),
            ("windows: {pane_secnds: 3}", "windows.pane_secnds"),
            ("windows: {pane_seconds: soon}", "windows.pane_seconds"),
            ("windows: {pane_seconds: 0}", "windows.pane_seconds"),
            ("windows: {pane_seconds: 7}", "windows.lengths_seconds"),
            ("- a\n- b", "segwatch.yaml"),
            ("a: [", "segwatch.yaml"),
            ("store: {url: 'mysql://x/y'}", "store.url"),
        ],
    )
    def test_a_bad_setting_is_named(self, segwatch: Segwatch, tmp_path: Path, text: str, named: str) -> None:
        (tmp_path / "segwatch.yaml").write_text(text)
        done = segwatch("status")
        assert done.code == 2
        assert named in one_line(done)

    def test_a_bad_variable_is_named(self, segwatch: Segwatch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGWATCH_DRIFT_BINS", "many")
        done = segwatch("status")
        assert done.code == 2
        assert "SEGWATCH_DRIFT_BINS" in one_line(done)

    def test_the_settings_file_may_be_named_before_or_after_the_command(
        self, segwatch: Segwatch, built: Done, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere.yaml").write_text(f"data_dir: {tmp_path / 'else'}")
        assert segwatch("--config", "elsewhere.yaml", "status").code == 2  # there is no store in it
        assert segwatch("status", "--config", "elsewhere.yaml").code == 2
        assert segwatch("status", "--config=elsewhere.yaml").code == 2
        assert segwatch("status").code == 0

    def test_debug_shows_where(self, segwatch: Segwatch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["segwatch", "status", "--debug", "--config", "nowhere.yaml"])
        with pytest.raises(Exception, match="nowhere.yaml") as raised:
            main()
        assert not isinstance(raised.value, SystemExit)


class TestBaseline:
    def test_it_is_built_listed_shown_and_activated(self, segwatch: Segwatch, built: Done) -> None:
        made = built.json
        assert (made["model"], made["version"], made["active"], made["records"]) == ("street", "1", True, 300)
        assert made["counts"]["used"] == 300
        assert made["classes"] == ["bus", "car", "person"]
        [listed] = segwatch("baseline", "list", "--json").json["baselines"]
        assert listed["id"] == made["id"] and listed["active"]
        shown = segwatch("baseline", "show", made["id"][:8], "--json").json
        assert shown["id"] == made["id"] and shown["embedding"] == "given:16"
        assert made["id"][:12] in segwatch("baseline", "list").out
        assert "given:16" in segwatch("baseline", "show", made["id"]).out

    def test_another_one_takes_over_when_it_is_activated(self, segwatch: Segwatch, built: Done) -> None:
        second = segwatch(*"baseline build --model street --version 1 train.jsonl --slice camera=1".split())
        assert second.code == 0
        assert "not active yet" in second.out
        rows = segwatch("baseline", "list", "--json").json["baselines"]
        assert [row["active"] for row in rows] == [True, False]
        done = segwatch("baseline", "activate", rows[1]["id"][:10])
        assert done.code == 0
        assert [row["active"] for row in segwatch("baseline", "list", "--json").json["baselines"]] == [False, True]
        assert rows[1]["slice"] == "camera=1"

    def test_several_files_and_a_classes_file_are_taken(self, segwatch: Segwatch, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_bytes(lines(predictions(30, NOW_US - HOUR_US, 1)))
        (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(predictions(30, NOW_US - HOUR_US, 1, first=100))))
        (tmp_path / "classes.yaml").write_text("{names: {0: car, 3: bus}, ignore: [255], critical: [bus]}")
        done = segwatch(
            *"baseline build --model street --version 1 --records a.jsonl b.jsonl.gz --classes classes.yaml".split(),
            "--json",
        )
        assert done.code == 0, done.err
        assert done.json["records"] == 60
        assert done.json["classes"] == ["car", "bus"]
        assert done.json["critical"] == {"bus": None}

    def test_bad_records_are_named_with_file_and_line_and_left_out(self, segwatch: Segwatch, tmp_path: Path) -> None:
        values = [encode(one) for one in predictions(60, NOW_US - HOUR_US, 1)]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join([*values[:4], b"{}", *values[4:], b"junk"]))
        done = segwatch(*"baseline build --model street --version 1 --records a.jsonl".split())
        assert done.code == 0
        assert [line.split(": ")[:2] for line in done.err.splitlines() if "slices have a baseline" not in line] == [
            ["a.jsonl:5", "missing_field"],
            ["a.jsonl:62", "not_json"],
        ]
        assert "2 bad" in done.out

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ("build --model street --version 1", "--records"),
            ("build --model street --records train.jsonl", "--version"),
            ("build --version 1 --records train.jsonl", "--model"),
            ("build --model street --version 1 --records nowhere.jsonl", "nowhere.jsonl"),
            ("build --model street --version 1 --records .", "."),
            ("build --model strasse --version 1 --records train.jsonl", "'strasse'"),
            ("build --model street --version 9 --records train.jsonl", "'9'"),
            ("build --model street --version 1 --records train.jsonl --slice camera", "KEY=VALUE"),
            ("build --model street --version 1 --records train.jsonl --slice camera=99", "no usable record"),
            ("build --model street --version 1 --records train.jsonl --classes nowhere.yaml", "nowhere.yaml"),
            ("build --model street --version 1 --records train.jsonl --classes train.jsonl", "train.jsonl"),
            ("show ffffffffff", "ffffffffff"),
            ("activate ffffffffff", "ffffffffff"),
            ("show", "BASELINE_ID"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_2(
        self, segwatch: Segwatch, built: Done, arguments: str, named: str
    ) -> None:
        done = segwatch("baseline", *arguments.split())
        assert done.code == 2
        assert named in one_line(done)

    def test_records_that_are_embedded_in_different_ways_are_exit_2(self, segwatch: Segwatch, tmp_path: Path) -> None:
        values = [*predictions(20, NOW_US - HOUR_US, 1), prediction(99, NOW_US - HOUR_US, embedding=[1.0, 2.0])]
        (tmp_path / "mixed.jsonl").write_bytes(lines(iter(values)))
        done = segwatch(*"baseline build --model street --version 1 --records mixed.jsonl".split())
        assert done.code == 2
        assert "mixed.jsonl:21" in one_line(done)


class TestReplay:
    def test_it_ends_with_the_counts_and_all_windows_closed(self, replayed: Done) -> None:
        shown = replayed.json
        assert shown["outcomes"] == {
            "ok": 80, "failed": 0, "dead_letter": 2, "duplicate": 1, "late": 0, "dropped": 0,
        }  # fmt: skip
        assert shown["read"] == sum(shown["outcomes"].values()) == 83
        assert shown["reasons"] == {"not_json": 1, "wrong_type": 1}
        assert shown["windows_scored"] == 4 * 3  # of two lengths (an hour: two), all and three cameras

    def test_bad_records_are_named_and_kept_as_dead_letters(self, replayed: Done, tmp_path: Path) -> None:
        named = [line for line in replayed.err.splitlines() if line.startswith("day.jsonl")]
        assert [line.split(": ")[:2] for line in named] == [
            ["day.jsonl:82", "not_json"],
            ["day.jsonl:83", "wrong_type"],
        ]
        letters = [json.loads(line) for line in (tmp_path / ".segwatch/dead-letter.jsonl").read_text().splitlines()]
        assert sorted((one["offset"], one["reason"], one["value"]) for one in letters) == [
            (82, "not_json", "{"),
            (83, "wrong_type", "[1]"),
        ]
        assert {one["topic"] for one in letters} == {"day.jsonl"}

    def test_the_alarm_leaves_its_action(self, replayed: Done, tmp_path: Path) -> None:
        actions = [json.loads(line) for line in (tmp_path / ".segwatch/actions.jsonl").read_text().splitlines()]
        assert {one["type"] for one in actions} == {"segwatch.alert.v1", "segwatch.relabel_requested.v1"}
        assert len({one["id"] for one in actions}) == len(actions) >= 1

    def test_again_everything_is_a_duplicate(self, segwatch: Segwatch, replayed: Done) -> None:
        again = segwatch("replay", "day.jsonl", "--json").json
        assert again["outcomes"]["duplicate"] == 81
        assert again["outcomes"]["ok"] == 0
        assert again["windows_scored"] == 0

    def test_people_get_a_sentence(self, segwatch: Segwatch, replayed: Done) -> None:
        done = segwatch("replay", "day.jsonl")
        assert done.code == 0
        assert "83 records: 0 ok" in done.out

    def test_strict_is_exit_1_where_a_record_was_bad(self, segwatch: Segwatch, replayed: Done) -> None:
        done = segwatch("replay", "day.jsonl", "--strict")
        assert done.code == 1
        assert done.err.splitlines()[-1] == "segwatch: 2 records were bad"
        assert segwatch("replay", "train.jsonl", "--strict").code == 0

    def test_a_slice_takes_its_part(self, segwatch: Segwatch, built: Done, tmp_path: Path) -> None:
        (tmp_path / "day.jsonl").write_bytes(lines(predictions(30, NOW_US - HOUR_US, 1)))
        shown = segwatch("replay", "day.jsonl", "--slice", "camera=2", "--json").json
        assert (shown["read"], shown["skipped"]) == (10, 20)

    def test_a_slice_may_have_an_empty_value(self, segwatch: Segwatch, built: Done, tmp_path: Path) -> None:
        records = list(predictions(3, NOW_US - HOUR_US, 1))
        records[1]["slices"] = {"camera": ""}
        (tmp_path / "day.jsonl").write_bytes(lines(iter(records)))
        shown = segwatch("replay", "day.jsonl", "--slice", "camera=", "--json").json
        assert (shown["read"], shown["skipped"], shown["outcomes"]["ok"]) == (1, 2, 1)

    def test_more_than_twenty_bad_records_are_summed_up(self, segwatch: Segwatch, built: Done, tmp_path: Path) -> None:
        (tmp_path / "bad.jsonl").write_bytes(b"x\n" * 50)
        done = segwatch("replay", "bad.jsonl")
        assert done.code == 0
        named = [line for line in done.err.splitlines() if line.startswith("bad.jsonl")]
        assert len(named) == 20
        assert "further bad records are not shown" in done.err

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [("nowhere.jsonl", "nowhere.jsonl"), ("", "FILES"), ("train.jsonl --slice x", "KEY=VALUE")],
    )
    def test_bad_input_is_one_line_and_exit_2(
        self, segwatch: Segwatch, built: Done, arguments: str, named: str
    ) -> None:
        done = segwatch("replay", *arguments.split())
        assert done.code == 2
        assert named in one_line(done)

    def test_without_a_baseline_it_says_what_to_do(self, segwatch: Segwatch, tmp_path: Path) -> None:
        (tmp_path / "day.jsonl").write_bytes(lines(predictions(3, NOW_US, 1)))
        done = segwatch("replay", "day.jsonl")
        assert done.code == 2
        assert "baseline build" in one_line(done)

    def test_a_file_that_was_cut_off_is_named_with_its_last_line(
        self, segwatch: Segwatch, built: Done, tmp_path: Path
    ) -> None:
        whole = gzip.compress(lines(predictions(200, NOW_US - HOUR_US, 1)))
        (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
        done = segwatch("replay", "cut.jsonl.gz")
        assert done.code == 2
        assert "cut.jsonl.gz" in done.err.splitlines()[-1]
        assert done.err.count("cut.jsonl.gz") == 1
        (tmp_path / "cut.jsonl.gz").write_bytes(whole)
        assert segwatch("replay", "cut.jsonl.gz").code == 0
        [window] = segwatch(*"drift --model street --window all --json".split()).json["windows"]
        assert window["records"] == 200


class TestDriftAndStatus:
    def test_windows_have_the_keys_of_the_contract(self, segwatch: Segwatch, replayed: Done) -> None:
        shown = segwatch("drift", "--model", "street", "--json").json
        assert shown.keys() == {"windows"}
        assert [window["alarm"] for window in shown["windows"]] == [False, True]
        for window in shown["windows"]:
            assert window.keys() >= KEYS
            assert {key for score in window["scores"] for key in score} == SCORE_KEYS
            assert window["slice"] is None
        assert shown["windows"][1]["attribution"][0]["signal"] == "embedding"

    @pytest.mark.parametrize(
        ("options", "windows"),
        [
            ("--window 5m", 24),
            ("--window all", 1),
            ("--window 7200s --slice camera=1", 1),
            ("--version 1 --alpha 0.01", 2),
            ("--since 2030-01-01", 0),
            ("--until 2020-01-01T00:00:00Z", 0),
        ],
    )
    def test_options_choose_windows(self, segwatch: Segwatch, replayed: Done, options: str, windows: int) -> None:
        done = segwatch("drift", "--model", "street", "--json", *options.split())
        assert done.code == 0, done.err
        assert len(done.json["windows"]) == windows

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ("", "--model"),
            ("--model strasse", "'strasse'"),
            ("--model street --version 7", "'7'"),
            ("--model street --window 7m", "--window"),
            ("--model street --window soon", "--window"),
            ("--model street --window 0", "--window"),
            ("--model street --window 99999999999d", "--window"),
            ("--model street --since yesterday", "--since"),
            ("--model street --until 2026-01-01T00:00:00", "--until"),
            ("--model street --since 2026-01-02 --until 2026-01-01", "--since"),
            ("--model street --alpha 0", "--alpha"),
            ("--model street --alpha 1", "--alpha"),
            ("--model street --alpha nan", "--alpha"),
            ("--model street --alpha some", "--alpha"),
            ("--model street --slice camera", "KEY=VALUE"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_2(self, segwatch: Segwatch, built: Done, options: str, named: str) -> None:
        done = segwatch("drift", *options.split())
        assert done.code == 2
        assert named in one_line(done)

    def test_people_get_a_table(self, segwatch: Segwatch, replayed: Done) -> None:
        done = segwatch("drift", "--model", "street")
        assert "ALARM" in done.out
        assert segwatch("drift", "--model", "street", "--since", "2030-01-01").out == "No records in this range.\n"

    def test_status_shows_records_baseline_and_windows(self, segwatch: Segwatch, replayed: Done) -> None:
        shown = segwatch("status", "--json").json
        [model] = shown["models"]
        assert (model["model"], model["version"]) == ("street", "1")
        assert model["records"] == {"ok": 80, "duplicate": 1}
        assert model["baseline"]
        assert shown["unattributed"] == {"dead_letter": 2}
        assert (shown["lag_records"], shown["outbox_pending"]) == (0, 0)
        assert any(window["alarm"] and window["slice"] is None for window in model["windows"])
        text = segwatch("status").out
        assert "street version 1" in text and "80 ok" in text and "threshold" in text

    def test_a_folder_without_a_store_is_said_so(self, segwatch: Segwatch) -> None:
        done = segwatch("status")
        assert done.code == 2
        assert "segwatch.db" in one_line(done)


class TestOthers:
    def test_doctor_says_one_line_for_each_thing(self, segwatch: Segwatch, built: Done) -> None:
        done = segwatch("doctor")
        assert done.code == 0, done.out
        assert all(line.startswith("ok   ") for line in done.out.splitlines())
        assert {"settings", "kafka", "database", "baseline", "device", "web", "prometheus"} == {
            line.split()[1].rstrip(":") for line in done.out.splitlines()
        }

    def test_doctor_is_exit_1_where_a_check_fails(self, segwatch: Segwatch) -> None:
        done = segwatch("doctor")
        assert done.code == 1
        assert "FAIL database" in done.out
        assert done.err.splitlines()[-1] == "segwatch: 1 check failed"

    def test_doctor_names_a_bad_setting(self, segwatch: Segwatch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEGWATCH_DRIFT_BINS", "many")
        done = segwatch("doctor")
        assert done.code == 1
        assert "SEGWATCH_DRIFT_BINS" in done.out

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ("topics create", "kafka.bootstrap_servers"),
            ("publish train.jsonl", "kafka.bootstrap_servers"),
            ("publish nowhere.jsonl", "nowhere.jsonl"),
            ("publish", "FILES"),
            ("run --role everything", "everything"),
            ("run --role ingest", "kafka.bootstrap_servers"),
            ("backbone export --source timm:nothing --layer x --out y.pt2", "timm:nothing"),
            ("backbone export --source nowhere.pt2 --layer x --out y.pt2", "nowhere.pt2"),
            ("backbone export --source timm:resnet18", "--layer"),
            ("demo --no-serve --corruption rain", "rain"),
            ("demo --no-serve --strength 9", "--strength"),
            ("demo --no-serve --dir .", "--dir"),
            ("demo --no-serve --dir /proc/nowhere", "--dir"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_2(
        self, segwatch: Segwatch, built: Done, arguments: str, named: str
    ) -> None:
        done = segwatch(*arguments.split())
        assert done.code == 2
        assert named in one_line(done)

    @pytest.mark.slow
    def test_kafka_that_is_away_is_one_line_and_exit_1(self, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        done = in_a_process(tmp_path, "topics", "create", SEGWATCH_KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
        assert done.code == 1
        assert f"127.0.0.1:{port}" in one_line(done)

    @pytest.mark.slow
    def test_the_service_runs_embedded_refuses_a_second_writer_and_stops_cleanly(
        self, segwatch: Segwatch, replayed: Done, tmp_path: Path
    ) -> None:
        (port,) = free_ports(1)
        log = tmp_path / "run.log"
        environ = environment(SEGWATCH_WEB_PORT=str(port))
        with log.open("wb") as stderr:
            service = subprocess.Popen([sys.executable, "-c", ENTRY, "run"], cwd=tmp_path, env=environ, stderr=stderr)
        try:

            def healthy() -> bool:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/healthy", timeout=5) as answer:
                        return bool(answer.status == 200)
                except (urllib.error.URLError, ConnectionError):
                    return False

            eventually("healthy", healthy, 60)
            refused = segwatch("replay", "day.jsonl")
            assert refused.code == 1
            assert str(service.pid) in one_line(refused)
            assert segwatch("status").code == 0  # readers are welcome
            service.send_signal(signal.SIGTERM)
            assert service.wait(30) == 0, log.read_text()
        finally:
            service.kill()
            service.wait()
        assert "stopped cleanly" in log.read_text()
        assert segwatch("replay", "day.jsonl").code == 0
