"""What is loaded before anybody opens a page."""

from __future__ import annotations

from pathlib import Path

import dashboards
from dashboards.render import templates
from dashboards.warm_up import warm_up
from detectors.quality import instance_judgement


def test_every_template_and_the_code_that_reads_judgements_are_loaded() -> None:
    templates.cache_clear()
    warm_up()
    cache = templates().cache
    assert cache is not None
    there = {path.name for path in Path(dashboards.__path__[0], "templates").iterdir()}
    assert {name for _, name in cache.keys()} == there  # noqa: SIM118 - a cache is no dict
    assert instance_judgement._rows_agree.signatures, "compiled"
