"""How often the canary's sequential test is wrong, how soon it is right, and how often its intervals hold the truth.

Runs look after every image (or sequence): a run counts as rolled back where the evidence was ever enough. Differences
of IoU are clipped to -1..1. ``equal``: the canary loses nothing on average. Prints tables, writes JSON.

    python -m bench.bench_canary [--runs 2000] [--seed 0]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.rig import write_result
from detectors.canary.difference import paired
from detectors.canary.sequential import Differences, log_evidence, targets_for
from detectors.canary.verdict import Rule
from detectors.quality.ratio import RatioSample

Floats = NDArray[np.float64]
Maker = Callable[[np.random.Generator, int, float], Differences]
"""From a generator, a number of images and the mean difference."""
LOSS, PAIRS, LONG = -0.05, 300, 2000
SPREAD = 0.2
RULE = Rule()


def independent(spread: float) -> Maker:
    return lambda rng, count, mean: of_records(rng.normal(mean, spread, count))


def skewed(sign: int, shape: float) -> Maker:
    """Gamma: with ``sign`` 1 the canary is a little worse on most images, and much better on a few."""

    def made(rng: np.random.Generator, count: int, mean: float) -> Differences:
        return of_records(mean + SPREAD * sign * (rng.gamma(shape, 1, count) - shape) / math.sqrt(shape))

    return made


def rare(share: float, size: float) -> Maker:
    """On a few images the canary is much better, and on all others so much worse that nothing is lost on average."""

    def made(rng: np.random.Generator, count: int, mean: float) -> Differences:
        return of_records(mean + np.where(rng.random(count) < share, size, -share * size / (1 - share)))

    return made


def sequences(frames: int, alike: float) -> Maker:
    """Frames of one sequence correlate; a sequence is one unit."""

    def made(rng: np.random.Generator, count: int, mean: float) -> Differences:
        whole = count // frames
        common, own = rng.normal(size=(whole, 1)), rng.normal(size=(whole, frames))
        each = np.clip(mean + SPREAD * (math.sqrt(alike) * common + math.sqrt(1 - alike) * own), -1, 1)
        return Differences(each.mean(1), np.ones(whole), np.full(whole, frames))

    return made


def sizes(rng: np.random.Generator, count: int, mean: float) -> Differences:
    """Objects whose areas are lognormal: the largest of 300 is some thirty times the median."""
    return Differences(np.clip(rng.normal(mean, SPREAD, count), -1, 1), rng.lognormal(0, 1.2, count), ones(count))


def of_records(differences: Floats) -> Differences:
    return Differences.of_records(np.clip(differences, -1, 1))


def ones(count: int) -> NDArray[np.int64]:
    return np.ones(count, np.int64)


CASES: dict[str, Maker] = {
    "independent, sd 0.2": independent(0.2),
    "independent, sd 0.1": independent(0.1),
    "independent, sd 0.4": independent(0.4),
    "mostly a little worse, seldom much better": skewed(1, 1.0),
    "the same, more skewed": skewed(1, 0.3),
    "mostly a little better, seldom much worse": skewed(-1, 1.0),
    "areas lognormal": sizes,
    "sequences of 2, correlation 0.3": sequences(2, 0.3),
    "sequences of 5, correlation 0.1": sequences(5, 0.1),
    "sequences of 5, correlation 0.5": sequences(5, 0.5),
    "sequences of 10, correlation 0.5": sequences(10, 0.5),
    "sequences of 30, correlation 0.5": sequences(30, 0.5),
}
EXTREME: dict[str, Maker] = {
    "1 of 100 much better": rare(0.01, 0.95),
    "2 of 100 much better": rare(0.02, 0.9),
    "5 of 100 much better": rare(0.05, 0.95),
    "10 of 100 better by half": rare(0.1, 0.5),
}


def first_crossing(evidence: Floats, chance: float) -> int | None:
    above = np.flatnonzero(evidence >= -math.log(chance))
    return int(above[0]) if len(above) else None


def rollbacks(made: Maker, mean: float, within: int, runs: int, seed: int) -> dict[str, Any]:
    """Share of the runs that were rolled back ``within`` so many images, the images until then, and those until four
    in five were."""
    rng = np.random.default_rng(seed)
    after = np.full(runs, np.inf)
    for run in range(runs):
        units = made(rng, LONG, mean)
        crossed = first_crossing(log_evidence(units), RULE.wrong_rollback)
        if crossed is not None:
            after[run] = units.images[: crossed + 1].sum()
    soon = after[after <= within]
    late = float(np.sort(after)[math.ceil(0.8 * runs) - 1])
    return {
        "share": len(soon) / runs,
        "median_images": float(np.median(soon)) if len(soon) else None,
        "images_of_80_percent": late if math.isfinite(late) else None,
    }


def growing(frames: int, alike: float, cameras: int, images: int, runs: int, seed: int) -> float:
    """Share of wrong rollbacks where sequences of several cameras at a time grow image by image, each looked at."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(runs):
        whole = images // frames
        common, own = rng.normal(size=(whole, 1)), rng.normal(size=(whole, frames))
        each = np.clip(SPREAD * (math.sqrt(alike) * common + math.sqrt(1 - alike) * own), -1, 1)
        sums = np.cumsum(each, axis=1)
        wrong += any(_looks_wrong(sums, look, frames, cameras) for look in range(2, images + 1))
    return wrong / runs


def _looks_wrong(sums: Floats, look: int, frames: int, cameras: int) -> bool:
    block, rest = divmod(look, frames * cameras)
    seen = np.zeros(len(sums), np.int64)
    seen[: block * cameras] = frames
    for camera in range(min(cameras, len(sums) - block * cameras)):
        seen[block * cameras + camera] = min(frames, (rest + cameras - 1 - camera) // cameras)
    at = np.flatnonzero(seen)
    means = sums[at, seen[at] - 1] / seen[at]
    evidence = log_evidence(Differences(means, seen[at].astype(np.float64), seen[at]))
    return bool(evidence[-1] >= -math.log(RULE.wrong_rollback))


def promotions(made: Maker, mean: float, images: int, runs: int, seed: int) -> dict[str, Any]:
    """Share of the runs in which a loss of more than the margin was refuted, and the images until then."""
    rng = np.random.default_rng(seed)
    after = []
    for _ in range(runs):
        units = made(rng, images, mean)
        evidence = log_evidence(units, RULE.margin, better=True, targets=targets_for(RULE.margin))
        crossed = first_crossing(evidence, RULE.wrong_promotion)
        if crossed is not None:
            after.append(int(units.images[: crossed + 1].sum()))
    return {"share": len(after) / runs, "median_images": float(np.median(after)) if after else None}


def pair_of(rng: np.random.Generator, kind: str, images: int, frames: int) -> tuple[RatioSample, RatioSample]:
    """Pixels of both versions on the same images."""
    whole = images // frames
    shape = (whole, frames)
    area = (rng.lognormal(7, 0.8, (whole, 1)) * rng.lognormal(0, 0.3, shape)).ravel()
    base = np.clip(rng.beta(8, 2, (whole, 1)) + 0.05 * rng.normal(size=shape), 0, 1)
    if kind == "noise":
        stable = np.clip(base + 0.08 * rng.normal(size=shape), 0, 1)
        canary = np.clip(base - 0.03 + 0.08 * rng.normal(size=shape), 0, 1)
    elif kind == "missed":
        stable, canary = base, np.where(rng.random(shape) < 0.03, 0, base)
    else:
        stable, canary = base, np.clip(base - 0.03 + 0.1 * rng.normal(size=(whole, 1)), 0, 1)
    unions = [area * (1 + 0.1 * rng.random(whole * frames)) for _ in range(2)]
    clusters = np.repeat(np.arange(whole), frames)
    return (
        RatioSample.uniform(stable.ravel() * unions[0], unions[0], clusters),
        RatioSample.uniform(canary.ravel() * unions[1], unions[1], clusters),
    )


def coverage(kind: str, images: int, frames: int, runs: int, seed: int) -> dict[str, Any]:
    """Share of 95 % intervals of the paired difference that hold the truth, and their mean width."""
    rng = np.random.default_rng(seed)
    many = pair_of(rng, kind, 500_000 // frames * frames, frames)
    first, second = many[0].ratio(), many[1].ratio()
    assert first is not None
    assert second is not None
    truth, held, widths = second - first, 0, []
    for _ in range(runs):
        found = paired(*pair_of(rng, kind, images, frames))
        assert found.lower is not None
        assert found.upper is not None
        held += found.lower <= truth <= found.upper
        widths.append(found.upper - found.lower)
    return {"coverage": held / runs, "width": float(np.mean(widths)), "truth": truth}


def measure(runs: int, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {"runs": runs, "seed": seed, "rule": asdict(RULE)}
    result["worse"] = {}
    result["equal"] = {}
    for name, made in CASES.items():
        result["worse"][name] = rollbacks(made, LOSS, PAIRS, runs, seed)
        result["equal"][name] = rollbacks(made, 0.0, LONG, runs, seed + 1)
        told = result["worse"][name], result["equal"][name]
        after = f"after {told[0]['median_images']}, 80 % after {told[0]['images_of_80_percent']}"
        after += f", wrongly {told[1]['share']:.4f}"
        print(f"{name:45s} rolled back {told[0]['share']:.3f} {after}")
    for name, made in EXTREME.items():
        result["equal"][name] = rollbacks(made, 0.0, LONG, runs, seed + 1)
        print(f"{name:45s} wrongly {result['equal'][name]['share']:.4f}")
    result["growing"] = {}
    for frames, alike, cameras in ((10, 0.5, 1), (10, 0.5, 4), (30, 0.9, 4)):
        share = growing(frames, alike, cameras, 300, max(runs // 4, 1), seed)
        result["growing"][f"{cameras} at a time, of {frames}, correlation {alike}"] = share
        print(f"growing sequences of {frames}, {cameras} at a time, correlation {alike}: wrongly {share:.4f}")
    result["promoted"] = {}
    for spread, mean, images in (
        (0.0, 0.0, 1000),
        (0.1, 0.0, 1000),
        (0.2, 0.0, 2000),
        (0.1, -0.02, 2000),
        (0.2, 0.02, 2000),
    ):
        found = promotions(independent(spread), mean, images, runs, seed)
        result["promoted"][f"sd {spread}, difference {mean}"] = found
        when = f"within {images} images {found['share']:.3f}, after {found['median_images']}"
        print(f"sd {spread}, difference {mean}: shown {when}")
    result["coverage"] = {}
    for kind in ("noise", "missed", "sequence"):
        for images, frames in ((20, 1), (60, 1), (300, 1), (100, 5), (300, 10)):
            found = coverage(kind, images, frames, runs, seed)
            result["coverage"][f"{kind}, {images} images in sequences of {frames}"] = found
            print(
                f"{kind}, {images} images in sequences of {frames}: {found['coverage']:.3f}, width {found['width']:.3f}"
            )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun = time.monotonic()
    result = measure(given.runs, given.seed)
    write_result("canary", {**result, "seconds": round(time.monotonic() - begun, 1)})


if __name__ == "__main__":
    main()
