"""Alertmanager's configuration: each alert reaches the right receiver, and bad files are refused by name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from alerts.alertmanager import inhibition
from alerts.alertmanager.config import render_alertmanager
from alerts.alertmanager.maintenance import parse_maintenance
from alerts.alertmanager.receivers import KINDS, defaults, parse_receivers
from alerts.rules import MARK, Case, Check, Links, Rule, RuleFile, firing
from alerts.rules_defaults import default_slos, rule_files
from alerts.slo.parse import parse
from monitor.cli import cli
from tests.real.component import unavailable
from tests.test_slo_files import EVERY_KIND

LINKS = Links("https://example.org/runbooks", "https://segwatch.example")
MAINTENANCE = {
    "maintenance": [
        {
            "name": "retraining",
            "models": ["street"],
            "categories": ["quality", "drift"],
            "time_intervals": [{"times": [{"start_time": "02:00", "end_time": "04:00"}], "location": "Europe/Berlin"}],
        },
        {"name": "moves", "categories": ["ops"], "time_intervals": [{"weekdays": ["sunday"]}]},
    ]
}
RECEIVERS: dict[str, Any] = {
    "ml_oncall": {
        "pagerduty_configs": [{"routing_key_file": "/run/secrets/pagerduty"}],
        "slack_configs": [{"api_url_file": "/run/secrets/slack", "channel": "#models"}],
    },
    "sre": {
        "email_configs": [
            {
                "to": "sre@example.org",
                "from": "segwatch@example.org",
                "smarthost": "mail.example.org:587",
                "auth_username": "segwatch",
                "auth_password_file": "/run/secrets/smtp",
                "tls_config": {"ca_file": "/etc/ssl/mail.pem"},
            }
        ]
    },
    "tickets": {
        "webhook_configs": [
            {
                "url": "https://tickets.example.org/hook",
                "max_alerts": 20,
                "http_config": {"authorization": {"credentials_file": "/run/secrets/tickets"}},
            }
        ]
    },
    "watchdog": {"webhook_configs": [{"url": "https://heartbeat.example.org/ping", "send_resolved": False}]},
}


def amtool(*arguments: str) -> str:
    """Output of amtool, which must not find fault."""
    tool = shutil.which("amtool")
    if tool is None:
        unavailable("amtool", "not on the PATH (Debian's package prometheus-alertmanager has it)")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write(folder: Path, maintenance: Mapping[str, Any] | None = None) -> Path:
    """The configuration's path."""
    windows = parse_maintenance(maintenance) if maintenance else []
    for name, text in render_alertmanager(parse_receivers(RECEIVERS, LINKS.pages), windows).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "alertmanager.yml"


def all_alerts() -> Iterator[Rule]:
    """Every alert of the catalogue and of each kind of SLO; of those that several have, one."""
    seen = set()
    for file in rule_files([*default_slos(), *parse(yaml.safe_load(EVERY_KIND))], LINKS):
        for group in file.groups:
            for rule in group.rules:
                key = (rule.alert, rule.labels.get("category"))
                if rule.alert and key not in seen:
                    seen.add(key)
                    yield rule


def labels_of(rule: Rule, **more: str) -> list[str]:
    """Labels as amtool takes them; a templated one has some value."""
    own = {name: "some" if "{{" in value else value for name, value in rule.labels.items()}
    return [f"{name}={value}" for name, value in {**own, "alertname": rule.alert, **more}.items()]


def wanted(rule: Rule) -> list[str]:
    """Receivers by what the issue says, not by how routes are written."""
    labels = rule.labels
    if labels["notify"] == "watchdog":
        return ["watchdog"]
    people = ["tickets"]
    if labels["notify"] == "page":
        people = ["sre"] if labels["category"] == "ops" else ["ml_oncall", "sre"]
    return [*(["actions"] if "action" in labels else []), *people]


def test_every_alert_lands_at_the_right_receiver(tmp_path: Path) -> None:
    config = write(tmp_path)
    for rule in all_alerts():
        labels = labels_of(rule, model="street")
        assert amtool("config", "routes", "test", f"--config.file={config}", *labels).strip() == ",".join(wanted(rule))
    unknown = amtool("config", "routes", "test", f"--config.file={config}", "alertname=OfSomebodyElse")
    assert unknown.strip() == "sre"


def leaves(route: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "routes" not in route:
        yield route
    for child in route.get("routes", ()):
        yield from leaves(child)


def test_every_route_is_taken_by_some_alert(tmp_path: Path) -> None:
    config = write(tmp_path, MAINTENANCE)
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    ends = list(leaves(tree["route"]))
    for number, leaf in enumerate(ends):
        leaf["receiver"] = f"leaf-{number}"  # so that amtool says which one was taken
        tree["receivers"].append({"name": f"leaf-{number}"})
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    taken: set[str] = set()
    for rule in all_alerts():
        for model in ("street", "other"):
            labels = labels_of(rule, model=model)
            taken.update(amtool("config", "routes", "test", f"--config.file={config}", *labels).strip().split(","))
    assert {leaf["receiver"] for leaf in ends} <= taken
    assert sum("mute_time_intervals" in leaf for leaf in ends) == 7, "those of people and of actions, not the watchdog"


def test_the_watchdog_comes_first_and_is_repeated_more_often_than_its_groups_interval(tmp_path: Path) -> None:
    route = yaml.safe_load(write(tmp_path, MAINTENANCE).read_text(encoding="utf-8"))["route"]
    first = route["routes"][0]
    assert first["receiver"] == "watchdog"
    assert (first["group_wait"], first["group_interval"], first["repeat_interval"]) == ("0s", "1m", "50s")
    assert "routes" not in first and "mute_time_intervals" not in first


def test_a_cause_is_a_group(tmp_path: Path) -> None:
    grouped: dict[tuple[str, str], set[str]] = {}
    for route in yaml.safe_load(write(tmp_path).read_text(encoding="utf-8"))["route"]["routes"]:
        grouped.setdefault((route["receiver"], route["matchers"][0]), set()).update(route["group_by"])
    assert grouped["ml_oncall", 'category=~"quality|drift"'] == {"model"}
    assert grouped["tickets", 'category="drift"'] == {"model", "version", "shift"}
    assert all("class" not in names and "slice" not in names for names in grouped.values())


def test_inhibition_names_only_alerts_and_labels_that_exist() -> None:
    rules = {rule.alert: rule for rule in all_alerts()}
    for rule in inhibition.inhibit_rules():
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, names = re.fullmatch(r'(\w+)(?:=~|=|!=)"([^"]*)"', matcher).groups()  # type: ignore[union-attr]
            if label == "alertname":
                assert set(names.split("|")) <= set(rules), matcher
    for name in (*inhibition.SERVICE_OUTAGES, *inhibition.JUDGING_OUTAGES):
        assert "by (model" not in rules[name].expr, "the outage of a model is no outage of all"
    for name in inhibition.MODEL_OUTAGES:
        assert "by (model)" in rules[name].expr and 'model!=""' in rules[name].expr


def test_amtool_accepts_every_kind_of_receiver_and_maintenance(tmp_path: Path) -> None:
    assert {kind for role in RECEIVERS.values() for kind in role} == set(KINDS)
    said = amtool("check-config", str(write(tmp_path, MAINTENANCE)))
    assert "5 receivers" in said and "1 templates" in said


def data(alerts: Sequence[tuple[str, str, dict[str, str], str]]) -> dict[str, Any]:
    """What Alertmanager hands to templates: (status, alertname, more labels, description) of each alert."""
    shown: list[dict[str, Any]] = [
        {
            "status": status,
            "labels": {"alertname": name, "notify": "page", "model": "street", **labels},
            "annotations": {
                "summary": "The error budget of an SLO burns fast.",
                "description": description,
                "runbook_url": f"https://example.org/runbooks/{name}.md",
                "page_url": "https://segwatch.example/?model=street",
                "dashboard_url": "https://grafana.example/d/quality?var-model=street",
            },
            "startsAt": "2026-11-23T03:45:33+01:00",
            "endsAt": "2026-11-23T04:10:00+01:00" if status == "resolved" else "0001-01-01T00:00:00Z",
        }
        for status, name, labels, description in alerts
    ]

    def common(part: str) -> dict[str, str]:
        return {
            key: value for key, value in shown[0][part].items() if all(one[part].get(key) == value for one in shown)
        }

    return {
        "receiver": "ml_oncall",
        "status": "firing" if any(one["status"] == "firing" for one in shown) else "resolved",
        "alerts": shown,
        "groupLabels": {"model": "street"},
        "commonLabels": common("labels"),
        "commonAnnotations": common("annotations"),
        "externalURL": "https://alertmanager.example",
    }


def render(tmp_path: Path, template: str, alerts: Sequence[tuple[str, str, dict[str, str], str]]) -> str:
    write(tmp_path)
    (tmp_path / "data.json").write_text(json.dumps(data(alerts)), encoding="utf-8")
    return amtool(
        "template",
        "render",
        f"--template.glob={tmp_path}/*.tmpl",
        f'--template.text={{{{ template "{template}" . }}}}',
        f"--template.data={tmp_path}/data.json",
    )


def test_text_says_what_since_when_for_which_classes_and_where_to_look(tmp_path: Path) -> None:
    alerts = [
        ("firing", "SegwatchQualityBurnFast", {"class": "bus"}, "Model street, class bus: 71% bad."),
        ("firing", "SegwatchQualityBurnFast", {"class": "car"}, "Model street, class car: 65% bad."),
    ]
    title = render(tmp_path, "segwatch.title", alerts)
    assert title == "PAGE street: The error budget of an SLO burns fast. Classes: bus, car."
    assert render(tmp_path, "segwatch.text", alerts) == (
        "Model street, class bus: 71% bad.\n"
        "Since Mon 23 Nov 02:45 UTC.\n\n"
        "Model street, class car: 65% bad.\n"
        "Since Mon 23 Nov 02:45 UTC.\n\n"
        "Page: https://segwatch.example/?model=street\n"
        "Dashboard: https://grafana.example/d/quality?var-model=street\n"
        "Runbook: https://example.org/runbooks/SegwatchQualityBurnFast.md"
    )


def test_alerts_of_several_names_have_a_runbook_each(tmp_path: Path) -> None:
    alerts = [
        ("firing", "SegwatchDriftHarmful", {"slice": "camera=7"}, "Drift."),
        ("firing", "SegwatchQualityBurnFast", {"class": "bus"}, "Quality."),
    ]
    text = render(tmp_path, "segwatch.text", alerts)
    assert re.findall(r"Runbook: .*/(\w+)\.md", text) == ["SegwatchDriftHarmful", "SegwatchQualityBurnFast"]
    assert render(tmp_path, "segwatch.title", alerts).endswith(" Classes: bus. Slices: camera=7.")


def test_what_is_over_is_told_with_both_times(tmp_path: Path) -> None:
    alerts = [("resolved", "SegwatchQualityBurnFast", {"class": "bus"}, "71% bad.")]
    assert render(tmp_path, "segwatch.title", alerts).startswith("RESOLVED street: ")
    text = render(tmp_path, "segwatch.text", alerts)
    assert text.startswith("Over: 71% bad.\nFrom Mon 23 Nov 02:45 to Mon 23 Nov 03:10 UTC")


def test_fifty_cameras_do_not_make_a_text_that_nobody_can_read(tmp_path: Path) -> None:
    alerts = [("firing", "SegwatchDrift", {"slice": f"camera={i}"}, f"Camera {i}.") for i in range(50)]
    text = render(tmp_path, "segwatch.text", alerts)
    assert text.count("Camera ") == 8
    assert "42 more: https://alertmanager.example" in text


def refused(tmp_path: Path, option: str, text: str) -> str:
    """What `rules render` says of a file."""
    file = tmp_path / "file.yaml"
    file.write_text(text, encoding="utf-8")
    done = run("--out", str(tmp_path / "out"), option, str(file))
    assert not (tmp_path / "out").exists()
    assert isinstance(done.exception, Exception), done.output
    return str(done.exception).removeprefix(f"{file}:")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["rules", "render", *arguments])


REST = "sre: {}\ntickets: {}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ml_oncall: {}\n" + REST + "boss: {}\n", "4: boss: no such role; there are ml_oncall, sre, "),
        ("ml_oncall: {}\nsre: {}\n", "1: tickets is missing (everything that can wait until the morning)"),
        (REST + "ml_oncall:\n  pager: []\n", "4: ml_oncall.pager: no such kind of receiver; there are webhook_configs"),
        (
            REST + "ml_oncall:\n  webhook_configs:\n    - url: https://a.example\n      colour: red\n",
            "6: ml_oncall.webhook_configs[0].colour: no such field; there are send_resolved, url",
        ),
        (
            REST + "ml_oncall:\n  slack_configs:\n    - api_url: https://hooks.example/secret\n",
            "5: ml_oncall.slack_configs[0].api_url: secrets come from files alone: api_url_file",
        ),
        (
            REST + "ml_oncall:\n  pagerduty_configs: [{routing_key: abc}]\n",
            "4: ml_oncall.pagerduty_configs[0].routing_key: secrets come from files alone: routing_key_file",
        ),
        (
            REST + "ml_oncall:\n  webhook_configs:\n    - url: https://me:secret@a.example\n",
            "5: ml_oncall.webhook_configs[0].url: secrets come from files alone",
        ),
        (
            REST + "ml_oncall:\n  webhook_configs:\n"
            "    - url: https://a.example\n      http_config: {basic_auth: {username: a, password: b}}\n",
            "6: ml_oncall.webhook_configs[0].http_config.basic_auth.password: secrets come from files alone",
        ),
        (REST + "ml_oncall:\n  webhook_configs: [{url: a.example}]\n", "4: ml_oncall.webhook_configs[0].url: expected"),
        (
            REST + "ml_oncall:\n  webhook_configs: [{max_alerts: 1}]\n",
            "4: ml_oncall.webhook_configs[0]: url is missing",
        ),
        (REST + "ml_oncall:\n  webhook_configs: {}\n", "4: ml_oncall.webhook_configs: expected a list"),
        (
            REST + "ml_oncall:\n  pagerduty_configs: [{}]\n",
            "4: ml_oncall.pagerduty_configs[0]: one of routing_key_file",
        ),
        ("- a\n", "1: expected fields, got ['a']"),
    ],
)
def test_a_bad_receivers_file_is_refused_by_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, "--receivers", text).startswith(said)


WEEKLY = "maintenance:\n  - name: a\n    time_intervals: [{weekdays: [monday]}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("windows: []\n", "1: expected one list, maintenance"),
        (WEEKLY + "    model: street\n", "4: maintenance[0].model: no such field; there are name, categories, models"),
        (
            WEEKLY + "    categories: [watchdog]\n",
            "4: maintenance[0].categories[0]: expected one of quality",
        ),
        (WEEKLY + WEEKLY.partition("\n")[2], "4: maintenance[1].name: a stands there twice"),
        (WEEKLY.replace("a\n", "a b\n", 1), "2: maintenance[0].name: expected a name of letters"),
        ("maintenance: [{name: a}]\n", "1: maintenance[0].time_intervals: expected a list of Alertmanager's"),
        (
            'maintenance:\n  - name: a\n    time_intervals: [{times: [{start_time: "22:00", end_time: "04:00"}]}]\n',
            "3: maintenance[0].time_intervals[0].times[0]: ends before it begins; a night is two",
        ),
        (
            "maintenance:\n  - name: a\n    time_intervals: [{times: [{start_time: 12:00, end_time: 14:00}]}]\n",
            '3: maintenance[0].time_intervals[0].times[0].start_time: expected a time such as "02:30" (in quotes)',
        ),
        (
            "maintenance:\n  - name: a\n    time_intervals: [{location: UTC}]\n",
            "3: maintenance[0].time_intervals[0]: expected one of times, weekdays",
        ),
    ],
)
def test_a_bad_maintenance_file_is_refused_by_line_and_field(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, "--maintenance", text).startswith(said)


def test_rendering_says_who_is_not_told_and_leaves_the_users_own_configuration_alone(tmp_path: Path) -> None:
    (tmp_path / "receivers.yaml").write_text(yaml.safe_dump(RECEIVERS), encoding="utf-8")
    out = tmp_path / "out"
    alone = run("--out", str(out))
    assert alone.exit_code == 0
    assert "no receiver for ml_oncall, which is pages of quality and drift (--receivers)" in alone.output
    told = run(
        "--out", str(out), "--receivers", str(tmp_path / "receivers.yaml"), "--pages", "https://segwatch.example"
    )
    assert told.exit_code == 0 and "no receiver" not in told.output
    text = (out / "alertmanager.yml").read_text(encoding="utf-8")
    assert text.startswith(MARK)
    (actions,) = [one for one in yaml.safe_load(text)["receivers"] if one["name"] == "actions"]
    assert actions["webhook_configs"] == [{"url": "https://segwatch.example/webhooks/alertmanager"}]
    (out / "alertmanager.yml").write_text("route: {receiver: mine}\n", encoding="utf-8")
    refusal = run("--out", str(out))
    assert "alertmanager.yml is not segwatch's" in str(refusal.exception)


def test_nothing_is_told_by_default_but_actions() -> None:
    assert defaults("https://segwatch.example/").silent() == ["ml_oncall", "sre", "tickets", "watchdog"]


def test_check_has_amtool_look_at_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "watchdog.rules.yml").write_text("groups: []\n", encoding="utf-8")
    write(tmp_path)
    if shutil.which("amtool") is None:
        unavailable("amtool", "not on the PATH (Debian's package prometheus-alertmanager has it)")
    good = CliRunner().invoke(cli, ["rules", "check", "--dir", str(tmp_path)])
    assert good.exit_code == 0, good.output
    assert "ok   amtool check-config alertmanager.yml" in good.output
    config = tmp_path / "alertmanager.yml"
    config.write_text(config.read_text(encoding="utf-8").replace("receiver: sre", "receiver: nobody"), encoding="utf-8")
    bad = CliRunner().invoke(cli, ["rules", "check", "--dir", str(tmp_path)])
    assert str(bad.exception) == "amtool finds fault with alertmanager.yml"


def test_a_shift_of_the_pictures_and_one_of_the_predictions_are_told_apart(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
    (drift,) = [file for file in rule_files([], LINKS) if file.name == "drift"]
    alarm = 'segwatch_drift_alarm{model="street",version="1",slice="",signal="%s"}'
    cases = []
    for signal, shift in (("embedding_mmd", "input"), ("input", "input"), ("class_mix", "prediction")):
        series = {alarm % "confidence": "1x10", alarm % signal: "1x10"}
        counted = f'count(ALERTS{{alertname="SegwatchDrift",alertstate="firing",shift="{shift}"}})'
        cases.append(Case(signal, series, [Check("5m", counted, 1), Check("5m", firing("SegwatchDrift"), 1)]))
    for name, text in RuleFile("drift", drift.groups, cases).render().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [promtool, "test", "rules", "drift.rules_test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
