"""Evidently's four methods for embeddings, with their default settings and thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas
from evidently.legacy.metrics.data_drift.embedding_drift_methods import distance, mmd, model, ratio

from bench.drift.peers.protocol import Fit, Judge, Setting, Values, Verdict, run

KERNEL_BASELINE = 2000
"""MMD holds the kernel of all pairs: 10,000 baseline records take 6 s a window."""


def method(make: Callable[[], Any], most: int | None = None) -> Fit:
    def fit(baseline: Values, setting: Setting) -> Judge:
        frame = pandas.DataFrame(baseline[:most])
        compare = make()

        def judge(window: Values) -> Verdict:
            score, drifted, _ = compare(pandas.DataFrame(window), frame.copy())
            return Verdict(bool(drifted), None, float(score))

        return judge

    return fit


if __name__ == "__main__":
    run(
        {
            "ratio of JS": method(lambda: ratio(component_stattest="jensenshannon")),
            "ratio of Wasserstein": method(ratio),
            "distance": method(distance),
            "classifier": method(model),
            f"MMD, baseline of {KERNEL_BASELINE:,}": method(mmd, KERNEL_BASELINE),
        }
    )
