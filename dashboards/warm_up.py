"""What the first who opens a page would wait for: compiled code and templates, a third of a second each."""

from __future__ import annotations

from typing import Any

import numpy as np

from dashboards.render import templates
from detectors.quality.instance_judgement import SUMS, InstanceJudgement

_LISTS = ("label_kind", "label_area", "label_crowd", "kind", "score", "area", "label", "shared", "any_label")


def warm_up() -> None:
    """Load both; for a thread of its own, beside the server's start."""
    for name in templates().list_templates():
        templates().get_template(name)
    none: dict[str, Any] = dict.fromkeys(SUMS, np.zeros(1, np.int64)) | dict.fromkeys(_LISTS, np.zeros(0, np.int64))
    none |= dict.fromkeys(("true_bits", "ignored_bits"), np.zeros(0, np.uint64))
    InstanceJudgement.from_bytes(InstanceJudgement(**none).to_bytes())
