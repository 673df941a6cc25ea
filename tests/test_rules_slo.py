"""An SLO's rules as Prometheus evaluates them: what pages, what does not, and what the figures are."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.stats import binomtest

from alerts.rules import Case, Check, Links, RuleFile, firing
from alerts.slo.parse import parse
from alerts.slo.render import groups
from alerts.slo.windows import fit
from tests.real.component import unavailable

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")
UP = 'up{job="segwatch",instance="segwatch"}'
PAGE, TICKET = firing("SegwatchQualityBurnFast"), firing("SegwatchQualityBurnSlow")
SERVICE_PAGE = firing("SegwatchServiceBurnFast")


def availability(**more: Any) -> dict[str, Any]:
    return {"name": "a", "kind": "availability", "model": "street", "objective": 0.99, **more}


def class_iou(**more: Any) -> dict[str, Any]:
    return {"name": "i", "kind": "class_iou", "model": "street", "iou": 0.5, "objective": 0.95, **more}


def records(outcome: str, version: str = "1") -> str:
    target = 'instance="segwatch",job="segwatch"'
    return f'segwatch_records_total{{{target},model="street",version="{version}",outcome="{outcome}"}}'


def labels(good: str, bad: str, name: str = "car") -> dict[str, str]:
    """Spot checks of a class: ``good`` counts all of them, ``bad`` those of an IoU up to 0.5."""
    inner = f'model="street",version="1",class="{name}"'
    metric = "segwatch_spotcheck_iou_ratio"
    return {f"{metric}_count{{{inner}}}": good, f'{metric}_bucket{{{inner},le="0.5"}}': bad}


def check(
    tmp_path: Path, slo: Mapping[str, Any], series: Mapping[str, str], checks: Sequence[Check], every: str = "1m"
) -> None:
    """Let promtool evaluate the SLO's rules over the series, which have a sample each time, and compare."""
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
    (parsed,) = parse(slo)
    case = Case("case", series, checks, interval=every, every=every)
    for name, text in RuleFile("slo", groups(parsed, LINKS), [case]).render().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [promtool, "test", "rules", f"slo.{every}.rules_test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def about(query: str, value: float, tolerance: float = 1e-9) -> str:
    """1 where the query's value is as near as that."""
    return f"max(abs(({query}) - {value!r}) <= bool {tolerance!r})"


def recorded(metric: str, window: str = "") -> str:
    return f"segwatch:slo_{metric}{window}"


def finite(at: str, slo: Mapping[str, Any]) -> list[Check]:
    """No recorded series is NaN or infinite."""
    (parsed,) = parse(slo)
    names = {rule.record for group in groups(parsed, LINKS) for rule in group.rules if rule.record}
    return [Check(at, f"count({name} != {name}) or count(abs({name}) == Inf)", None) for name in sorted(names)]


def test_one_bad_label_out_of_one_tells_nobody(tmp_path: Path) -> None:
    checks = [Check(at, query, None) for at in ("12m", "30m", "60m") for query in (PAGE, TICKET)]
    check(tmp_path, class_iou(), labels("0x10 1x60", "0x10 1x60"), checks)


def test_without_the_guard_one_bad_label_out_of_one_pages(tmp_path: Path) -> None:
    check(tmp_path, class_iou(guard=False), labels("0x10 1x60", "0x10 1x60"), [Check("12m", PAGE, 1)])


def test_total_failure_at_an_objective_of_080_pages(tmp_path: Path) -> None:
    series = labels("0+1x120", "0x60 1+1x60")
    check(tmp_path, class_iou(objective=0.8), series, [Check("59m", PAGE, None), Check("115m", PAGE, 1)])


def test_a_deep_outage_pages_and_flat_health_is_silent(tmp_path: Path) -> None:
    bad = {records("ok"): "0+10x90 900+5x60", records("failed"): "0x90 0+5x60"}
    check(tmp_path, availability(), bad, [Check("89m", SERVICE_PAGE, None), Check("110m", SERVICE_PAGE, 1)])
    good = {records("ok"): "0+10x200", records("failed"): "0+0.05x200"}
    check(tmp_path, availability(), good, [Check("190m", query, None) for query in (SERVICE_PAGE, "max(ALERTS)")])


def test_an_idle_window_yields_no_ratio_and_the_budget_stays_a_number(tmp_path: Path) -> None:
    slo = availability(objective=0.9)
    series = {records("ok"): "0+9x60 540x400", records("failed"): "0+1x60 60x400"}
    remaining = about(recorded("budget_remaining:ratio"), 0.0, 1e-9)
    checks = [
        Check("200m", f"count({recorded('error_ratio:ratio', '1h')})", None),
        Check("200m", f"max({recorded('events:increase', '1h')})", 0),
        Check("200m", remaining, 1),
        *(one for at in ("0m", "1m", "30m", "75m", "200m") for one in finite(at, slo)),
    ]
    check(tmp_path, slo, series, checks)


@pytest.mark.parametrize("slo", [availability(), class_iou(), class_iou(design_effect=2)], ids=str)
def test_no_sample_is_nan_or_infinite_at_first_events_resets_and_new_versions(
    tmp_path: Path, slo: dict[str, Any]
) -> None:
    reset, born = "_x10 0x20 3+3x20 0+1x30", "_x40 7+1x60"
    series = {
        records("ok"): reset,
        records("failed"): "_x10 0x20 3+3x20 0+1x30",
        records("failed", "2"): born,
        **labels(reset, "_x10 0x20 3+3x20 0+1x30"),
        'segwatch_spotcheck_images_total{model="street",version="1"}': "0x30 1x60",
        UP: "1x200",
    }
    moments = ("5m", "11m", "31m", "32m", "41m", "52m", "53m", "90m", "150m")
    check(tmp_path, slo, series, [one for at in moments for one in finite(at, slo)])


def test_a_class_gone_silent_raises_blindness_and_the_others_do_not(tmp_path: Path) -> None:
    slo = class_iou(classes=["car", "bus", "tram"], blind_after="1h")
    series = {**labels("0+1x200", "0x200"), **labels("0+1x30 30x170", "0x200", "bus")}
    silent = {name: firing("SegwatchClassSilent", f'class="{name}"') for name in ("car", "bus", "tram")}
    checks = [
        Check("60m", silent["bus"], None),
        Check("120m", silent["bus"], 1),
        Check("120m", silent["car"], None),
        Check("70m", silent["tram"], None),
        Check("80m", silent["tram"], 1),  # never had a series at all
        Check("120m", f"max({recorded('events:increase', '1h')}{{class='bus'}})", 0),
        Check("120m", "count(segwatch_slo_info)", 3),
        Check("120m", about("max(segwatch_slo_objective_ratio)", 0.95), 1),
    ]
    check(tmp_path, slo, series, checks)


def test_a_class_may_have_any_name(tmp_path: Path) -> None:
    names = ["5$1 note", 'a"b\\c', "bus|tram (old)"]
    series: dict[str, str] = {}
    for name in names:
        series |= labels("0+1x100", "0+1x100", name.replace("\\", "\\\\").replace('"', '\\"'))
    silent = firing("SegwatchClassSilent")
    checks = [Check("90m", f"count({recorded('events:increase', '1h')} > 50)", 3), Check("90m", silent, None)]
    check(tmp_path, class_iou(classes=names, blind_after="1h"), series, checks)


def test_events_before_the_first_sample_of_a_new_version_count(tmp_path: Path) -> None:
    """Version 2 appears with 40 failures that happened between two scrapes."""
    series = {records("ok"): "100+1x120", records("failed", "2"): "_x60 40x60", UP: "1x120"}
    checks = [
        Check("61m", about(recorded("bad_events:increase", "1h"), 40, 0.7), 1),
        Check("100m", about(recorded("bad_events:increase", "1h"), 40, 1e-9), 1),
        Check("100m", about(recorded("events:increase", "1h"), 100, 1.1), 1),
    ]
    check(tmp_path, availability(), series, checks)


def test_totals_of_years_are_no_events_of_a_new_prometheus(tmp_path: Path) -> None:
    series = {records("ok"): "_x10 9000000x120", records("failed"): "_x10 5000x120", UP: "_x10 1x120"}
    checks = [Check("60m", f"max({recorded(name, '1h')})", 0) for name in ("events:increase", "bad_events:increase")]
    check(tmp_path, availability(), series, checks)


def test_an_outage_of_the_scrape_is_no_birth(tmp_path: Path) -> None:
    series = {records("ok"): "5000x20 _x30 5000x80", records("failed"): "700x20 _x30 700x80", UP: "1x20 0x30 1x80"}
    checks = [Check(at, f"max({recorded('bad_events:increase', '1h')})", 0) for at in ("55m", "85m", "100m")]
    check(tmp_path, availability(), series, checks)


@pytest.mark.parametrize("hole", [1, 180])
def test_a_hole_in_a_counter_that_is_younger_than_the_window_is_no_birth(tmp_path: Path, hole: int) -> None:
    """The target is scraped all the time, and its series have whatever they counted in years."""
    total = 70 + hole + 240
    series = {
        records("ok"): f"900000x50 _x{hole} 900000x{total}",
        records("failed"): f"50000x50 _x{hole} 50000x{total}",
        UP: f"1x{total}",
    }
    names = [recorded(f"bad_events:increase{window}") for window in ("5m", "30m", "1h", "6h", "1d", "3d")]
    moments = (51 + hole, 55 + hole, 90 + hole, 125 + hole, 290 + hole)
    checks = [Check(f"{at}m", f"max({name}) > 0", None) for at in moments for name in names]
    checks += [Check(f"{at}m", "max(ALERTS)", None) for at in moments]
    checks += [Check(f"{at}m", f"max({recorded('period_bad_events:increase')})", 0) for at in moments[1:]]
    check(tmp_path, availability(), series, checks)


def test_a_version_that_comes_back_is_not_born_again(tmp_path: Path) -> None:
    """Version 2 is born with 7 failures, is cut out for 4 hours, and comes back with 9."""
    series = {records("ok"): "100+1x500", records("failed", "2"): "_x60 7x9 _x240 9x150", UP: "1x500"}
    counts = {"65m": 7, "200m": None, "315m": None, "330m": None}
    bad = recorded("bad_events:increase", "30m")
    checks = [Check(at, f"max({bad}) > 0", value) for at, value in counts.items()]
    checks += [Check(at, about(recorded("bad_events:increase", "1d"), 9, 0.1), 1) for at in ("330m", "450m")]
    check(tmp_path, availability(), series, checks)


def test_a_metric_that_an_upgrade_adds_was_not_born_with_its_total(tmp_path: Path) -> None:
    series = {records("ok"): "100+1x120", records("failed"): "_x60 5000+1x60", UP: "1x120"}
    checks = [Check("110m", about(recorded("bad_events:increase", window), 49, 2), 1) for window in ("1h", "1d")]
    check(tmp_path, availability(), series, checks)


def test_a_version_that_begins_with_a_burst_and_goes_on_at_a_trickle_pages_nobody(tmp_path: Path) -> None:
    """At its first sample version 2 has 20,000 successes and 90 failures, or 5,000 labels of which 90 are bad."""
    series = {records("ok"): "0+10x140", records("ok", "2"): "_x60 20000+10x80", records("failed", "2"): "_x60 90x80"}
    bad = recorded("bad_events:increase", "6h")
    told = [f"max({bad}) > 0", PAGE, TICKET, SERVICE_PAGE, firing("SegwatchBudgetExhausted")]
    silent = [Check(at, query, None) for at in ("61m", "65m", "70m", "100m", "139m") for query in told]
    check(tmp_path, availability(), {**series, UP: "1x140"}, silent)
    car = labels("_x60 5000+1x80", "_x60 90x80")
    check(tmp_path, class_iou(), {**car, "up": "1x140"}, silent)
    bus = labels("_x60 40+1x80", "_x60 40+1x80", "bus")  # born with as much as one scrape may bring
    counted = about(f"{bad}{{class='bus'}}", 80, 0.6)
    own = [Check("100m", counted, 1), Check("100m", f"max({bad}{{class='car'}}) > 0", None)]
    check(tmp_path, class_iou(), {**car, **bus, "up": "1x140"}, own)


def test_a_reset_counter_counts_on(tmp_path: Path) -> None:
    series = {records("ok"): "0x120", records("failed"): "0+1x30 0+1x90"}
    check(tmp_path, availability(), series, [Check("59m", about(recorded("bad_events:increase", "1h"), 58, 1.1), 1)])


def test_versions_are_taken_together_unless_one_is_named(tmp_path: Path) -> None:
    series = {records("ok"): "0+1x120", records("failed"): "0x120"}
    series |= {records("ok", "2"): "0+2x120", records("failed", "2"): "0+1x120"}
    check(tmp_path, availability(), series, [Check("90m", about(recorded("error_ratio:ratio", "1h"), 0.25), 1)])
    check(tmp_path, availability(version="1"), series, [Check("90m", f"max({recorded('error_ratio:ratio', '1h')})", 0)])


@pytest.mark.slow
def test_the_budget_is_of_sums_of_events_not_of_mean_ratios(tmp_path: Path) -> None:
    """A quiet day with one burst: 40 bad of 4,040 events, whatever the ratios of its quiet hours."""
    slo = availability(period="1d", windows=[{"notify": "page", "long": "1h", "short": "5m", "factor": 14.4}])
    series = {records("ok"): "0x60 0+100x40 4000x1000", records("failed"): "0x70 40x1030"}
    remaining = about(recorded("budget_remaining:ratio"), 1 - 40 / 4040 / 0.01, 2e-3)
    check(tmp_path, slo, series, [Check("600m", remaining, 1), Check("1000m", remaining, 1)])


def test_loss_of_data_holds_a_page_and_health_resolves_it(tmp_path: Path) -> None:
    series = {
        records("ok"): "0+9x60 540x40 _x90 540+20x60",
        records("failed"): "0x60 0+10x40 _x90 400x60",
    }
    held = [Check(f"{at}m", SERVICE_PAGE, 1) for at in (90, 110, 130, 188)]
    short = [{"notify": "page", "long": "1h", "short": "5m", "factor": 14.4}]
    slo = availability(windows=short)
    check(tmp_path, slo, series, [*held, Check("200m", SERVICE_PAGE, None)])
    let_go = [Check("90m", SERVICE_PAGE, 1), Check("120m", SERVICE_PAGE, None)]
    check(tmp_path, availability(windows=short, hold=False), series, let_go)


def test_a_burn_of_four_for_a_day_pages_and_one_of_three_only_when_the_budget_is_critical(tmp_path: Path) -> None:
    windows = [{"notify": "page", "long": "4h", "short": "1h", "factor": 4, "critical_budget": 0.1}]
    burns = {
        3: (None, {records("ok"): "0+97x300", records("failed"): "0+3x300"}),
        5: (1, {records("ok"): "0+95x300", records("failed"): "0+5x300"}),
    }
    slow = availability(windows=windows, period="30d")
    for expected, series in burns.values():
        # The budget of what little there is of the period is spent in both; a healthy past leaves it alone.
        healthy = {records("ok"): f"0+1000000x1 1000000{series[records('ok')][1:]}"}
        before = {**series, **healthy}
        check(tmp_path, slow, before, [Check("290m", SERVICE_PAGE, expected)])
    check(tmp_path, slow, burns[3][1], [Check("290m", SERVICE_PAGE, 1)])


@pytest.mark.parametrize(("bad", "total"), [(7, 7), (3, 40), (0, 12), (25, 30)])
def test_the_guard_is_wilsons_lower_bound(tmp_path: Path, bad: int, total: int) -> None:
    interval = binomtest(bad, total).proportion_ci(confidence_level=0.90, method="wilson")
    series = labels(f"0x10 {total}x80", f"0x10 {bad}x80")
    check(
        tmp_path,
        class_iou(),
        series,
        [
            Check("60m", about(recorded("events:increase", "1d"), total, 0.6), 1),
            Check("60m", about(recorded("error_ratio_lower:ratio", "1d"), max(0.0, float(interval.low)), 2e-2), 1),
        ],
    )


def test_instances_of_one_image_weigh_less_than_as_many_images(tmp_path: Path) -> None:
    """Five instances an image with a correlation of 0.5: a design effect of 1 + 0.5 (5 - 1) = 3."""
    images = 'segwatch_spotcheck_images_total{model="street",version="1"}'
    series = {**labels("0+5x120", "0+1x120"), images: "0+1x120"}
    check(tmp_path, class_iou(), series, [Check("90m", about(recorded("design_effect:ratio", "1h"), 3, 1e-6), 1)])
    series[images] = "0+10x120"
    check(tmp_path, class_iou(), series, [Check("90m", about(recorded("design_effect:ratio", "1h"), 1, 1e-6), 1)])
    del series[images]
    check(tmp_path, class_iou(), series, [Check("90m", about(recorded("design_effect:ratio", "1h"), 1, 1e-6), 1)])


def test_windows_grow_where_none_would_expect_enough_labels() -> None:
    def pages(labels_an_hour: float) -> list[tuple[str, str]]:
        (slo,) = parse(class_iou(events_per_hour=labels_an_hour))
        return [(burn.long, burn.short) for burn in fit(slo) if burn.tier.notify == "page"]

    usual = [("1h", "5m"), ("6h", "30m"), ("1d", "1h")]
    assert pages(2000) == usual
    assert pages(2) == usual  # 12 labels in 6 h, of which 6 can justify a page
    assert pages(0.1) == [*usual[:2], ("5d", "2d")]


@pytest.mark.slow
def test_too_few_labels_to_ever_page_is_said(tmp_path: Path) -> None:
    series = labels("0x400 1x20 2x1200", "0x1620")
    name = firing("SegwatchTooFewEvents")
    check(tmp_path, class_iou(), series, [Check("700m", name, None), Check("1000m", name, 1)])


@pytest.mark.slow
def test_too_few_labels_for_the_pair_with_the_most_time_are_said(tmp_path: Path) -> None:
    """After a healthy past all labels are bad, eight a day: six never come in 6 h, and the page of a day needs 11."""
    name, slo = firing("SegwatchTooFewEvents"), class_iou(objective=0.8)
    for steps, told, paged in ((45, 1, None), (20, None, 1)):
        bad = range(1, 720 // steps + 1)
        series = labels(
            "0 " + " ".join(f"{5000 + count}x{steps - 1}" for count in bad),
            "0 " + " ".join(f"{count}x{steps - 1}" for count in bad),
        )
        check(tmp_path, slo, series, [Check("2800m", name, told), Check("2800m", PAGE, paged)], every="4m")


def test_instances_of_few_images_do_not_exhaust_a_budget(tmp_path: Path) -> None:
    """13 of 40 instances are bad: more than 20 % where each has its own image, who knows where there are 4 images."""
    images = 'segwatch_spotcheck_images_total{model="street",version="1"}'
    name = firing("SegwatchBudgetExhausted")
    series = {**labels("0x10 40x80", "0x10 13x80"), images: "0x10 40x80"}
    check(tmp_path, class_iou(objective=0.8), series, [Check("40m", name, 1)])
    series[images] = "0x10 4x80"
    check(tmp_path, class_iou(objective=0.8), series, [Check("40m", name, None)])


def said(tmp_path: Path, slo: Mapping[str, Any], series: Mapping[str, str], at: str, alert: str) -> list[str]:
    """Descriptions of an alert as Prometheus words them, in promtool's report of a test that expects none."""
    (parsed,) = parse(slo)
    for name, text in RuleFile("slo", groups(parsed, LINKS), [Case("case", series, [])]).render().items():
        tree = yaml.safe_load(text)
        for test in tree.get("tests", ()):
            test["alert_rule_test"] = [{"eval_time": at, "alertname": alert, "exp_alerts": []}]
        (tmp_path / name).write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = [shutil.which("promtool") or unavailable("promtool", "not on the PATH"), "test", "rules"]
    done = subprocess.run(
        [*command, "slo.rules_test.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    return re.findall(r'description="(.*?)", page_url', done.stdout + done.stderr, re.DOTALL)


def test_a_page_tells_of_the_windows_that_raise_it(tmp_path: Path) -> None:
    """Two bad labels an hour: the last hour alone would justify no page, the last six do."""
    steady = "0x3 " + " ".join(f"{count}x29" for count in range(1, 14))
    (text,) = said(tmp_path, class_iou(objective=0.8), labels(steady, steady), "390m", "SegwatchQualityBurnFast")
    found = re.fullmatch(
        r"Model street, class car, SLO i \(class_iou\): 100 % of events were bad in the last 6h \(at least (\d+\.?\d?)"
        r" % at 95 % confidence\), of 12 events; (100 % of events were bad in the last 1d \(at least \d+\.?\d? % at 95"
        r" % confidence\), of 1\d events; )?20 % are allowed\. Budget left of 30d: -400 %\.",
        text,
    )
    assert found, text
    assert float(found[1]) > 60


def test_a_page_that_is_held_says_so(tmp_path: Path) -> None:
    series = {records("ok"): "0+9x60 540x40 _x90", records("failed"): "0x60 0+10x40 _x90"}
    slo = availability(windows=[{"notify": "page", "long": "1h", "short": "5m", "factor": 14.4}])
    (text,) = said(tmp_path, slo, series, "185m", "SegwatchServiceBurnFast")
    assert text.startswith("Model street, SLO a (availability): no data since; held until there are. 1 % are"), text


def test_texts_of_an_slo_without_a_model_or_of_images_say_what_they_are_about(tmp_path: Path) -> None:
    api = {"name": "api", "kind": "ratio", "total": "requests_total", "bad": "errors_total", "objective": 0.9}
    outage = {"requests_total": "0+10x120", "errors_total": "0+10x120"}
    (text,) = said(tmp_path, api, outage, "90m", "SegwatchServiceBurnFast")
    assert text.startswith("SLO api (ratio): 100 % of events were bad in the last 1h (at least 99."), text
    assert text.endswith("10 % are allowed. Budget left of 30d: -900 %."), text
    (text,) = said(tmp_path, api, outage, "90m", "SegwatchBudgetExhausted")
    assert text == "SLO api (ratio) has -900 % of its 30d budget left."
    fp = {"name": "fp", "kind": "false_positives_per_image", "model": "street", "limit": 0.2}
    inner = 'model="street",version="1"'
    many = {
        f'segwatch_spotcheck_instances_total{{{inner},class="car",verdict="fp"}}': "0+20x120",
        f"segwatch_spotcheck_images_total{{{inner}}}": "0+2x120",
    }
    text = said(tmp_path, fp, many, "90m", "SegwatchQualityBurnFast")[0]
    assert "class car, SLO fp (false_positives_per_image): 10 invented instances an image in the last 1h" in text
    assert ", of 120 images; " in text
    assert "0.2 are allowed" in text


def test_a_group_has_at_most_20_rules() -> None:
    for slo in (availability(), class_iou(), class_iou(blind_after="5d", events_per_hour=2)):
        for group in groups(parse(slo)[0], LINKS):
            assert len(group.rules) <= 20, group.name
