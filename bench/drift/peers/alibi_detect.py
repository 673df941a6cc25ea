"""alibi-detect's offline detectors for vectors, with their default settings (p <= 0.05, 100 permutations)."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import numpy as np
import torch
from alibi_detect.cd import KSDrift, LSDDDrift, MMDDrift, MMDDriftOnline

from bench.drift.peers.protocol import Judge, Setting, Values, Verdict, bonferroni, climb, run

KERNEL_BASELINE = 1000
"""Permutations of a kernel of all pairs: 3 s a window with 1,000 baseline records, 10 s with 2,000.
LSDD's fit on 10,000 takes minutes."""

ONLINE_WINDOW = 25
ONLINE_ERT = 50
"""Its own limits are for this run length; they are simulated in any case, and not used here."""


def ks(baseline: Values, setting: Setting) -> Judge:
    detector = KSDrift(baseline)

    def judge(window: Values) -> Verdict:
        said = detector.predict(window)["data"]
        p_value = bonferroni(said["p_val"])
        return Verdict(bool(said["is_drift"]), p_value, -float(np.log(max(said["p_val"].min(), 1e-300))))

    return judge


def mmd(baseline: Values, setting: Setting) -> Judge:
    permutations = 1 if setting.score_only else 100
    detector = MMDDrift(baseline[:KERNEL_BASELINE], backend="pytorch", device="cpu", n_permutations=permutations)
    return _permuted(detector, setting)


def lsdd(baseline: Values, setting: Setting) -> Judge:
    permutations = 1 if setting.score_only else 100
    torch.manual_seed(0)
    detector = LSDDDrift(baseline[:KERNEL_BASELINE], backend="pytorch", device="cpu", n_permutations=permutations)
    return _permuted(detector, setting)


def _permuted(detector: MMDDrift | LSDDDrift, setting: Setting) -> Judge:
    def judge(window: Values) -> Verdict:
        said = detector.predict(window)["data"]
        if setting.score_only:
            return Verdict(None, None, float(said["distance"]))
        return Verdict(bool(said["is_drift"]), float(said["p_val"]), float(said["distance"]))

    return judge


def online_mmd(baseline: Values, setting: Setting) -> Judge:
    """Its statistic alone counts: the limit is set on drift-free streams, as for everybody else."""
    torch.manual_seed(0)
    detector = MMDDriftOnline(
        baseline[:KERNEL_BASELINE],
        ert=ONLINE_ERT,
        window_size=ONLINE_WINDOW,
        backend="pytorch",
        device="cpu",
        n_bootstraps=1000,
        verbose=False,
    )

    def judge(window: Values) -> Verdict:
        detector.reset_state()
        path = climb(float(detector.predict(record)["data"]["test_stat"]) for record in window)
        return Verdict(None, None, None, path)

    return judge


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(
        {
            "KS of each dimension": ks,
            f"MMD, baseline of {KERNEL_BASELINE:,}": mmd,
            f"LSDD, baseline of {KERNEL_BASELINE:,}": lsdd,
        },
        online={f"online MMD, window of {ONLINE_WINDOW}": online_mmd},
    )
