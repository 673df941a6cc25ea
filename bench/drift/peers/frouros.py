"""Frouros' data drift detectors. They give distances or p-values and leave alarms to the user."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import numpy as np
from frouros.callbacks import PermutationTestDistanceBased
from frouros.detectors.data_drift import MMD, PSI, KSTest

from bench.drift.peers.protocol import Judge, Setting, Values, Verdict, bonferroni, run

PSI_THRESHOLD = 0.2
"""The usual rule of thumb ("significant change"); Frouros itself has none."""
KERNEL_BASELINE = 1000


def psi(baseline: Values, setting: Setting) -> Judge:
    """The largest of all dimensions."""
    detectors = []
    for column in baseline.T:
        detectors.append(PSI())
        detectors[-1].fit(X=column)

    def judge(window: Values) -> Verdict:
        largest = max(
            float(each.compare(X=column)[0].distance) for each, column in zip(detectors, window.T, strict=True)
        )
        return Verdict(largest > PSI_THRESHOLD, None, largest)

    return judge


def ks(baseline: Values, setting: Setting) -> Judge:
    detectors = []
    for column in baseline.T:
        detectors.append(KSTest())
        detectors[-1].fit(X=column)

    def judge(window: Values) -> Verdict:
        p_values = np.array(
            [each.compare(X=column)[0].p_value for each, column in zip(detectors, window.T, strict=True)]
        )
        return Verdict(None, bonferroni(p_values), -float(np.log(max(p_values.min(), 1e-300))))

    return judge


def mmd(baseline: Values, setting: Setting) -> Judge:
    permuted = PermutationTestDistanceBased(num_permutations=100, random_state=0, num_jobs=1, name="permuted")
    detector = MMD(callbacks=[] if setting.score_only else [permuted])
    detector.fit(X=baseline[:KERNEL_BASELINE])

    def judge(window: Values) -> Verdict:
        said, logs = detector.compare(X=window)
        return Verdict(None, None if setting.score_only else float(logs["permuted"]["p_value"]), float(said.distance))

    return judge


if __name__ == "__main__":
    run(
        {
            f"PSI above {PSI_THRESHOLD:g}": psi,
            "KS of each dimension": ks,
            f"MMD, baseline of {KERNEL_BASELINE:,}": mmd,
        }
    )
