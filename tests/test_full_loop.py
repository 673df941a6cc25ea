"""``segwatch demo --full-loop``: the played parts; a loop that does not close says so. All of it: ``tests/real``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from monitor.cli import cli
from monitor.demo.run import MARKER
from monitor.demo.scenes import target
from monitor.demo.traffic import true_scenes
from monitor.errors import CheckFailed, SegwatchError
from monitor.full_loop.actions_log import ActionsLog
from monitor.full_loop.plan import LoopPlan
from monitor.full_loop.run import run_full_loop
from monitor.full_loop.shell import Shell
from monitor.full_loop.told import queue_table
from monitor.full_loop.trainer import examples

SMALL = LoopPlan(records_per_hour=24, baseline_hours=2, calm_hours=1, most_shifted_hours=1)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """A loop with too little time: segwatch never gets the labels that a retraining needs."""
    folder, said = tmp_path_factory.mktemp("loop") / "demo", list[str]()
    with pytest.raises(CheckFailed) as failed:
        run_full_loop(cli, folder, SMALL, serve=False, say=said.append)
    return folder, said, str(failed.value)


def test_a_loop_that_does_not_close_says_what_is_missing(unfinished: tuple[Path, list[str], str]) -> None:
    folder, said, failed = unfinished
    assert failed.startswith("no retraining was asked for within 1 hours of the shift")
    assert "after" not in json.loads((folder / MARKER).read_text())
    assert not any("version 2" in line for line in said)
    assert any("actions list" in line for line in said)  # where to look further


def test_variables_of_a_real_installation_are_not_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, real = tmp_path / "segwatch.yaml", tmp_path / "real"
    config.write_text(f"data_dir: {tmp_path / 'demo'}\n")
    monkeypatch.setenv("SEGWATCH_DATA_DIR", str(real))
    with pytest.raises(SegwatchError, match="demo"):  # of the store that is not there yet
        Shell(cli, config, print)("status", show=False)
    assert os.environ["SEGWATCH_DATA_DIR"] == str(real)


def test_labels_come_through_queue_export_and_import_and_are_exact(unfinished: tuple[Path, list[str], str]) -> None:
    folder, said, _ = unfinished
    assert any(line.strip().startswith("$ segwatch relabel export --format coco --claim-as") for line in said)
    done = folder / "batches" / "01" / "done.json"
    export = json.loads(done.read_text())
    wanted = {one["input_id"] for one in export["images"]}
    assert wanted and all(one["segwatch"]["purpose"] in ("spot_check", "relabel") for one in export["images"])
    exact = {name: scene for hour in (0, 1) for name, scene in true_scenes(SMALL.hour(hour), wanted)}
    found = examples(done, [done.parent / "images"], wanted)
    assert len(found) == len(wanted)
    for one, name in zip(found, (one["input_id"] for one in export["images"]), strict=True):
        np.testing.assert_array_equal(one.truth, target(exact[name]))
        assert np.abs(one.image.astype(int) - exact[name].image).mean() < 5  # as JPEG, twice


def test_inputs_that_a_request_does_not_name_are_not_trained_on(unfinished: tuple[Path, list[str], str]) -> None:
    done = unfinished[0] / "batches" / "01" / "done.json"
    [first, *_] = [one["input_id"] for one in json.loads(done.read_text())["images"]]
    assert len(examples(done, [done.parent / "images"], {first, "unknown"})) == 1


def test_an_action_that_comes_twice_is_one(tmp_path: Path) -> None:
    file = tmp_path / "actions.jsonl"
    assert ActionsLog(file).of("retrain") == []
    one = {"id": "a", "type": "segwatch.retrain_requested.v1", "data": {"id": "a"}}
    other = {**one, "id": "b", "type": "segwatch.promote_requested.v1", "data": {"id": "b"}}
    file.write_text("".join(json.dumps(each) + "\n" for each in (one, other, one)))
    assert ActionsLog(file).of("retrain") == [{"id": "a"}]
    assert ActionsLog(file).of("promote") == [{"id": "b"}]


def test_the_queue_is_told_by_cause_with_its_probabilities() -> None:
    items: list[dict[str, Any]] = [
        {"kind": "drift", "probability": None, "input_id": "a", "reason": "typical"},
        {"kind": "spot_check", "probability": 0.1, "input_id": "b", "reason": "3"},
        {"kind": "spot_check", "probability": 0.25, "input_id": "c", "reason": "4"},
    ]
    lines = queue_table(items).splitlines()
    assert lines[1].split()[:2] == ["spot_check", "2"] and "0.10 to 0.25" in lines[1]
    assert lines[2].split()[:2] == ["drift", "1"] and "none" in lines[2]


def test_the_command_refuses_a_shift_that_nobody_knows_before_it_starts(tmp_path: Path) -> None:
    asked = ["demo", "--full-loop", "--corruption", "fog", "--dir", str(tmp_path / "demo")]
    result = CliRunner().invoke(cli, asked)
    assert result.exit_code != 0 and "fog" in str(result.exception)
    assert not (tmp_path / "demo").exists()
