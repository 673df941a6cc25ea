"""Rows of figures as a page of Markdown: what was reached against the targets, then every case."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

from bench.quality import coverage, drops, means, scenarios
from bench.quality.coverage import Row

HEAD = """# Quality: do the intervals cover?

Written by `make bench-quality`; do not edit. Labels are drawn from made populations, the estimators that
`segwatch quality` uses say their interval for pooled IoU (further down: for its mean over classes, and for COCO's AP),
and the share of intervals that hold the truth is counted.

Families (`bench/quality/scenarios.py`), each for classes in 5 to 100 % of the frames:

- *lognormal*: lognormal areas (sigma 1), IoU by Kumaraswamy's law, better for large areas.
- *wide*: the same with sigma 1.6, where the largest record is hundreds of times the median.
- *counts*: gamma areas, beta-binomial pixels, each sequence with a quality of its own; strongly skewed near 1.
- *misses*: objects found well or missed whole, the smaller the likelier, and some that are not there.
- *objects* (held out): several objects a frame, Pareto areas, found by size, blurred along the boundary; false ones.
- *video* (held out): shares of the image, logistic IoU with Student's noise, AR(1) along the sequence.

The constants of the intervals were chosen on the first four. *objects* was run once before they were final, and its
result was a reason to look for wider intervals, which were then chosen on the first four; *video* changed nothing.
What tells the two bounds from each other was added later: its constants were chosen on the first four, while its form
was decided with all six in view, and checked with populations from other seeds.

Windows have 2,000 records in sequences of 15 (correlation 0.5 of presence, area and quality within a sequence);
20 populations share the repetitions of a case. *uniform*: records without replacement, all alike. *biased*: by an
uncertainty that is e^2 times as high for IoU 0 as for IoU 1, times lognormal noise (sigma 0.7), with a floor of a
quarter of the uniform probability; each record independently, so that the number of labels varies. *process*:
10 sequences (20 at 200 labels) with all their frames labelled, correlations 0.3 and 0.7, no finite population.

A class counts as *rare* in a case where fewer than 20 labels are expected to have it, or with 20 labels in all.
"""
LOWEST, HIGHEST, HIGHEST_RARE = 0.93, 0.97, 0.99
MOST_USELESS = 1.05
SAVINGS = {0.8: 2.0, 0.9: 4.0}
LEAST_FOUND, MOST_FALSE = 0.8, 0.01


def page(rows: Sequence[Row]) -> str:
    """The whole page; figures that were not measured are left out."""
    figures = [_targets(rows), _coverage(rows), _refusals(rows), _assisted(rows), _means(rows), _precision(rows)]
    return "\n".join([HEAD, *filter(None, [*figures, _drops(rows)])])


def grid(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines)) + "\n"


def section(title: str, text: str, *tables: str) -> str:
    """A heading, a paragraph broken at 120 characters, and what follows it."""
    return "\n".join([f"## {title}\n", textwrap.fill(text, 120) + "\n", *tables])


def rare(row: Row) -> bool:
    """Whether the wider band of coverage holds for a case."""
    return bool(row["labels"] <= 20 or row["labels"] * row["frequency"] < 20)


def within(row: Row) -> bool:
    """Whether a case's coverage is in its band."""
    return bool(LOWEST <= row["coverage"] <= (HIGHEST_RARE if rare(row) else HIGHEST))


def percent(share: float | None) -> str:
    """A share for a cell; a dash where there is none.

    >>> percent(0.0123), percent(None)
    ('1.2', '-')
    """
    return "-" if share is None else f"{100 * share:.1f}"


def _of(rows: Sequence[Row], figure: str) -> list[Row]:
    return [row for row in rows if row["figure"] == figure]


def _given(rows: Sequence[Row]) -> list[Row]:
    """Cases in which enough intervals were given for their coverage to mean something."""
    return [row for row in _of(rows, "coverage") if row["given"] >= 200]


def _targets(rows: Sequence[Row]) -> str:
    lines: list[Sequence[str]] = []
    for held in (False, True):
        for choice, estimand in (("uniform", "window"), ("biased", "window"), ("uniform", "process")):
            for few in (False, True):
                found = [
                    row for row in _given(rows)
                    if (row["held_out"], row["choice"], row["estimand"], rare(row)) == (held, choice, estimand, few)
                ]  # fmt: skip
                if not found:
                    continue
                shares = np.array([row["coverage"] for row in found])
                what = estimand if estimand == "process" else f"window, {choice}"
                name = f"{what}, {'rare or 20 labels' if few else '50 to 200 labels'}{', held out' if held else ''}"
                band = f"93..{99 if few else 97} %"
                inside = sum(within(row) for row in found)
                low = int((shares < LOWEST).sum())
                span = f"mean {percent(shares.mean())}, {percent(shares.min())} to {percent(shares.max())} %"
                counts = f"{inside} of {len(found)} inside, {low} below, {len(found) - inside - low} above"
                lines.append((name, band, span, counts))
    parts = []
    if lines:
        parts.append(grid(("Coverage of 95 % intervals", "Target", "Cases", "In the band"), lines))
    lines = [*_assisted_targets(rows), *_drop_targets(rows), *_given_targets(rows), *_other_targets(rows)]
    if lines:
        parts.append(grid(("Figure", "Target", "Reached", "Met"), lines))
    return "## Against the targets\n\n" + "\n".join(parts) if parts else ""


def met(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _given_targets(rows: Sequence[Row]) -> list[Sequence[str]]:
    found = [
        row for row in _of(rows, "coverage")
        if row["estimand"] == "process" and row["labels"] >= 50 and row["frequency"] >= 0.2
    ]  # fmt: skip
    if not found:
        return []
    share = min(row["given"] / (row["given"] + row["refused"]) for row in found)
    figure = "A number from 50 labels in 10 sequences on, class in 20 % of frames"
    return [(figure, "always", f"in {percent(share)} % of samples at least", met(share == 1))]


def _other_targets(rows: Sequence[Row]) -> list[Sequence[str]]:
    lines: list[Sequence[str]] = []
    for figure, name in (("means", "mean IoU"), ("precision", "COCO's AP")):
        shares = np.array([row["coverage"] for row in _of(rows, figure) if row["given"] >= 100])
        if len(shares):
            low = int((shares < LOWEST).sum())
            reached = f"mean {percent(shares.mean())} %, {low} of {len(shares)} cases below 93 %"
            lines.append((f"Coverage of the intervals of {name}", ">= 93 %", reached, met(low == 0)))
    return lines


def _assisted_targets(rows: Sequence[Row]) -> list[Sequence[str]]:
    lines: list[Sequence[str]] = []
    found = _of(rows, "assisted")
    for quality, wanted in SAVINGS.items():
        saved = [row["labels_saved"] for row in found if row["quality"] == quality]
        if saved:
            reached = f"{min(saved):.1f}x to {max(saved):.1f}x, median {np.median(saved):.1f}x"
            holds = met(min(saved) >= wanted)
            lines.append((f"Labels saved, correlation {quality:g}", f">= {wanted:g}x", reached, holds))
    useless = [row["mean_width_ratio"] for row in found if row["quality"] == 0]
    if useless:
        reached = f"{np.mean(useless):.3f}x on average, at most {max(useless):.3f}x"
        figure = "Width with a useless expectation"
        lines.append((figure, f"<= {MOST_USELESS:g}x", reached, met(max(useless) <= MOST_USELESS)))
    return lines


def _drop_targets(rows: Sequence[Row]) -> list[Sequence[str]]:
    lines: list[Sequence[str]] = []
    found = _of(rows, "drops")
    for kind, name in (("once", "one look"), ("anytime", "a look at every label")) if found else ():
        least, most = min(row[f"found_{kind}"] for row in found), max(row[f"false_{kind}"] for row in found)
        wanted = f">= {100 * LEAST_FOUND:g} %, <= {100 * MOST_FALSE:g} % false"
        # Two standard errors of what 1 % gives in so many repetitions.
        slack = 2 * (MOST_FALSE * (1 - MOST_FALSE) / min(row["false_repetitions"] for row in found)) ** 0.5
        holds = least >= LEAST_FOUND and most <= MOST_FALSE + slack
        reached = f"{percent(least)} % at least, {percent(most)} % at most"
        lines.append((f"Drop of {drops.DROP:g} within {drops.LABELS} labels, {name}", wanted, reached, met(holds)))
    return lines


def _coverage(rows: Sequence[Row]) -> str:
    found = _of(rows, "coverage")
    if not found:
        return ""
    keys = [("window", "uniform", 0.5), ("window", "biased", 0.5)]
    keys += [("process", "uniform", correlation) for correlation in coverage.CORRELATIONS]
    tables = []
    for estimand, choice, correlation in keys:
        lines = []
        for family in scenarios.FAMILIES:
            for frequency, iou in coverage.CLASSES:
                cells = []
                for labels in coverage.LABELS:
                    case = (family, frequency, iou, estimand, choice, correlation, labels)
                    cells.append(_cell([row for row in found if _case(row) == case]))
                lines.append((family, f"{100 * frequency:g} %", f"{iou:g}", *cells))
        title = f"### {estimand}, {choice}" if estimand == "window" else f"### process, correlation {correlation:g}"
        header = ("Family", "In frames", "IoU", *(f"n = {labels}" for labels in coverage.LABELS))
        tables.append(title + "\n\n" + grid(header, lines))
    text = (
        f"Coverage in % / mean width of the intervals that were given, {found[0]['given'] + found[0]['refused']:,} "
        "repetitions each (standard error 0.5 at 95 %). Bold where it is out of its band; a dash where fewer than 200 "
        "intervals were given."
    )
    return section("Coverage", text, *tables)


def _case(row: Row) -> tuple[object, ...]:
    names = ("family", "frequency", "iou", "estimand", "choice", "correlation", "labels")
    return tuple(row[name] for name in names)


def _cell(found: Sequence[Row]) -> str:
    if not found or found[0]["given"] < 200:
        return "-"
    row = found[0]
    text = percent(row["coverage"])
    return f"{text if within(row) else f'**{text}**'} / {row['width']:.3f}"


def _refusals(rows: Sequence[Row]) -> str:
    found = [row for row in _of(rows, "coverage") if row["refused"]]
    if not found:
        return ""
    header = ("In frames", "Estimand, choice", *(f"n = {labels}" for labels in coverage.LABELS))
    lines = []
    for frequency in sorted({row["frequency"] for row in found}):
        for estimand, choice in (("window", "uniform"), ("window", "biased"), ("process", "uniform")):
            cells = []
            for labels in coverage.LABELS:
                these = [
                    row for row in _of(rows, "coverage")
                    if (row["frequency"], row["estimand"], row["choice"], row["labels"])
                    == (frequency, estimand, choice, labels)
                ]  # fmt: skip
                total = sum(row["given"] + row["refused"] for row in these)
                cells.append(percent(sum(row["refused"] for row in these) / total if total else None))
            lines.append((f"{100 * frequency:g} %", f"{estimand}, {choice}", *cells))
    text = (
        'Share of samples in % for which "too few labels" is said instead of a number: fewer than two labelled '
        "records (process: sequences; from 50 labels on none at all) had the class. All families together."
    )
    return section("Refusals", text, grid(header, lines))


def _assisted(rows: Sequence[Row]) -> str:
    found = _of(rows, "assisted")
    if not found:
        return ""
    lines = [
        (
            row["family"], f"{100 * row['frequency']:g} %", f"{row['iou']:g}", str(row["labels"]),
            str(row["quality"]), percent(row["coverage"]), percent(row["plain_coverage"]),
            f"{row['width']:.3f}", f"{row['labels_saved']:.2f}x", f"{row['mean_width_ratio']:.3f}",
        )
        for row in found
    ]  # fmt: skip
    header = (
        "Family", "In frames", "IoU", "n", "Correlation", "Coverage", "Spot checks'", "Width", "Labels saved",
        "Mean ratio of widths",
    )  # fmt: skip
    repetitions = [row["given"] + row["refused"] for row in found]
    text = (
        f"{min(repetitions):,} repetitions or more of each case. "
        "Expectations whose residuals correlate so with the labels' (0: useless; blind: good, but records that are "
        "wholly wrong look like any other), N the larger of 2,000 and 20 n. Labels saved: squared ratio of the mean "
        "widths of spot checks and assisted, from the same labels."
    )
    return section("Assisted", text, grid(header, lines))


def _means(rows: Sequence[Row]) -> str:
    found = _of(rows, "means")
    if not found:
        return ""
    kinds = (("window", "uniform"), ("window", "biased"), ("process", "uniform"))
    cells = {
        (row["family"], row["classes"], row["estimand"], row["choice"], row["labels"]): _plain_cell(row)
        for row in found
    }  # fmt: skip
    lines = [
        (family, str(count), f"{estimand}, {choice}",
         *(cells.get((family, count, estimand, choice, labels), "-") for labels in means.LABELS))
        for family in scenarios.FAMILIES
        if any(row["family"] == family for row in found)
        for count in means.SETS
        for estimand, choice in kinds
    ]  # fmt: skip
    text = (
        "Of the mean IoU over classes in 20 to 100 % of the frames that are independent of each other; coverage in % / "
        f"mean width, {_repetitions(found)} repetitions each. Bold where it is below 93 %."
    )
    header = ("Family", "Classes", "Estimand, choice", *(f"n = {labels}" for labels in means.LABELS))
    return section("The mean over classes", text, grid(header, lines))


def _precision(rows: Sequence[Row]) -> str:
    found = _of(rows, "precision")
    if not found:
        return ""
    cells = {(row["estimand"], row["metric"], row["of"], row["labels"]): _plain_cell(row) for row in found}
    lines = [
        (estimand, metric, of, *(cells.get((estimand, metric, of, labels), "-") for labels in means.LABELS))
        for estimand in ("window", "process")
        for metric in means.METRICS
        for of in dict.fromkeys(row["of"] for row in found)
    ]
    text = (
        "Of COCO's AP on judged images of squares, by the share of images with the class; windows of 1,000 records; "
        f"coverage in % / mean width of the intervals that were given, {_repetitions(found)} repetitions each. Bold "
        "where it is below 93 %; a dash where fewer than 100 were given."
    )
    header = ("Estimand", "Metric", "Class", *(f"n = {labels}" for labels in means.LABELS))
    return section("Average precision", text, grid(header, lines))


def _repetitions(found: Sequence[Row]) -> str:
    return f"{min(row['given'] + row['refused'] for row in found):,}"


def _plain_cell(row: Row) -> str:
    if row["given"] < 100:
        return "-"
    text = percent(row["coverage"])
    return f"{text if row['coverage'] >= LOWEST else f'**{text}**'} / {row['width']:.3f}"


def _drops(rows: Sequence[Row]) -> str:
    found = _of(rows, "drops")
    if not found:
        return ""
    lines = [
        (
            f"{row['iou']:g}", row["areas"], percent(row["found_once"]), percent(row["false_once"]),
            percent(row["found_anytime"]), percent(row["false_anytime"]), f"{row['median_labels_anytime']:.0f}",
        )
        for row in found
    ]  # fmt: skip
    header = ("IoU before", "Areas", "Found, one look", "False", "Found, every label", "False", "Median labels")
    text = (
        f"A drop of {drops.DROP:g}, influence sd {drops.SPREAD:g}, {drops.LABELS} independent labels, alpha "
        f"{drops.ALPHA:g} one-sided; {found[0]['found_repetitions']:,} repetitions with the drop, "
        f"{found[0]['false_repetitions']:,} without. One look: `dropped`, at the end. Every label: `drop_evidence`, "
        "which may be looked at after each."
    )
    return section("Drops", text, grid(header, lines))
