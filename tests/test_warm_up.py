"""What is loaded before anybody opens a page."""

from __future__ import annotations

from pathlib import Path

import numba
import pytest

import dashboards
from dashboards.render import templates
from dashboards.warm_up import warm_up
from detectors.quality import instance_judgement
from detectors.quality.instance_judgement import InstanceJudgement
from detectors.quality.judge_instances import judge_instances
from tests.made_instances import labels, predictions, rectangle


def test_every_template_is_loaded() -> None:
    templates.cache_clear()
    warm_up()
    cache = templates().cache
    assert cache is not None
    there = {path.name for path in Path(dashboards.__path__[0], "templates").iterdir()}
    assert {name for _, name in cache.keys()} == there  # noqa: SIM118 - a cache is no dict


def test_the_code_that_reads_judgements_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    # One of its own: that of the module is compiled as soon as anything in this process has read a judgement.
    fresh = numba.njit(nogil=True)(instance_judgement._rows_agree.py_func)
    monkeypatch.setattr(instance_judgement, "_rows_agree", fresh)
    box = rectangle(0, 0, 32, 32)
    real = judge_instances(predictions([0], [0.9], [box]), labels([0], [box]), 1).to_bytes()
    assert not fresh.signatures
    warm_up()
    compiled = list(fresh.signatures)
    assert compiled
    InstanceJudgement.from_bytes(real)
    assert fresh.signatures == compiled, "nothing is left to compile"
