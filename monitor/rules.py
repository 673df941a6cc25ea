"""``segwatch rules``: renders what Prometheus and Alertmanager need, and has promtool and amtool check it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alerts.alertmanager.config import CONFIG_FILE, render_alertmanager
from alerts.alertmanager.receivers import Receivers, defaults
from alerts.installation import Installation
from alerts.rules import MARK, Links
from alerts.rules_defaults import default_slos, rule_files
from alerts.slo.parse import check_classes, check_retention
from alerts.slo.promql import duration
from alerts.slo.schema import schema
from alerts.slo.spec import Ratio, Slo
from alerts.slo.windows import fit
from monitor import alertmanager_files
from monitor.errors import CheckFailed, InputError, StoreError
from monitor.settings import Settings
from monitor.slo_files import SloFiles, find_files
from monitor.slo_models import check_classes_of_any, doubts

PROMTOOL_TIMEOUT_S = 600
"""For one file: tests of 30 simulated hours take some 20 s."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``slo_files`` empty: the packaged SLOs."""

    slo_files: Sequence[Path] = ()
    retention_s: int = 31 * 86_400
    job: str = "segwatch"
    instance: str = "segwatch"
    runbooks: str = ""
    pages: str = ""
    dashboard: str = ""
    receivers: Path | None = None
    maintenance: Path | None = None


def links(settings: Settings, options: Options) -> Links:
    """Addresses for annotations: those given, else segwatch's own."""
    pages = options.pages or settings.web.address
    return Links(options.runbooks or f"{pages.rstrip('/')}/runbooks", pages, options.dashboard)


def installation(settings: Settings, options: Options) -> Installation:
    """What rules depend on: where Prometheus finds segwatch, and how long its windows take."""
    return Installation(
        options.job,
        options.instance,
        settings.windows.lengths_seconds[0],
        settings.windows.close_delay_seconds,
        settings.kafka.labels_topic,
    )


def read_slos(settings: Settings, options: Options, say: Callable[[str], None]) -> list[Slo]:
    """The SLOs of the files, checked against Prometheus's retention, and the models and classes of baselines.

    A model that no baseline has may come later, so it is only said.
    """
    if not options.slo_files:
        return default_slos()
    files = SloFiles(find_files(options.slo_files))
    for note in files.notes:
        say(note)
    files.check(check_retention, options.retention_s)
    if any(slo.classes or slo.model for slo in files.slos):
        known = known_classes(settings, say)
        files.check(check_classes, known)
        files.check(check_classes_of_any, known)
        for doubt in doubts(files.slos, known):
            say(f"warning: {files.placed(doubt)}")
    return files.slos


def known_classes(settings: Settings, say: Callable[[str], None]) -> Mapping[str, Sequence[str]]:
    """Classes by model, of all active baselines; nothing where there is no store to ask."""
    from monitor.store.store import Store

    try:
        store = Store.open(settings, write=False)
    except (StoreError, InputError) as error:
        say(f"model and class names are not checked: {error}")
        return {}
    try:
        found: dict[str, list[str]] = {}
        for entry in store.active_baselines().values():
            names = entry.meta.meta.get("classes")
            found.setdefault(entry.meta.model, []).extend(map(str, names) if isinstance(names, list) else ())
        return found
    finally:
        store.close()


def render(settings: Settings, options: Options, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Write all rules and their tests, and Alertmanager's configuration.

    Removes rules of an earlier rendering that are no longer needed. Raises InputError where a file of the user's own
    would be overwritten.
    """
    slos = read_slos(settings, options, say)
    addresses = links(settings, options)
    receivers = alertmanager_files.read_receivers(options.receivers, addresses.pages)
    files = render_alertmanager(receivers, alertmanager_files.read_maintenance(options.maintenance))
    for rule_file in rule_files(slos, addresses, installation(settings, options)):
        files.update(rule_file.render())
    if any(isinstance(slo.source, Ratio) for slo in slos):
        _refuse_bad_queries(files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            if (folder / name).exists() and not _is_ours(folder / name):
                raise InputError(f"{folder / name} is not segwatch's: move it away, or --out elsewhere")
        for stale in sorted({*folder.glob("*.rules.yml"), *folder.glob("*.rules_test.yml")}):
            if stale.name not in files and _is_ours(stale):
                stale.unlink()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {folder}: {error.strerror or error}") from None
    said = [*notes(slos), *alertmanager_files.notes(receivers), *_unsigned_actions(settings, receivers, addresses)]
    for line in said:
        say(line)
    return [folder / name for name in files]


def _unsigned_actions(settings: Settings, receivers: Receivers, addresses: Links) -> list[str]:
    """Alertmanager would be refused each time: an alert for ever (SegwatchNotificationsFailing), and no action."""
    to_segwatch = defaults(addresses.pages).configs["actions"]
    asks = settings.web.token or settings.web.tokens_file or settings.web.proxy_user_header
    if not asks or receivers.configs.get("actions") != to_segwatch:
        return []
    return ["warning: segwatch asks for a token, and Alertmanager has none for actions: name it in --receivers"]


def _refuse_bad_queries(files: Mapping[str, str]) -> None:
    """Queries of the user's own, which Prometheus would refuse together with all other rules. Needs promtool."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            if name.startswith("slo-") and name.endswith(".rules.yml"):
                (Path(folder) / name).write_text(text, encoding="utf-8")
                fault = _run([promtool, "check", "rules", name], Path(folder))
                if fault:
                    slo = name.removeprefix("slo-").removesuffix(".rules.yml")
                    raise InputError(f"SLO {slo}: promtool refuses its rules: {' '.join(fault.split())[:500]}")


def _is_ours(file: Path) -> bool:
    return MARK.encode() in file.read_bytes().partition(b"\n")[0]


def notes(slos: Sequence[Slo]) -> list[str]:
    """What was changed so that an alert can fire: rescaled thresholds and longer windows."""
    found = []
    for slo in slos:
        for burn in fit(slo):
            tier = burn.tier
            name = f"SLO {slo.name}: the {tier.notify} of {duration(tier.long_s)} and {duration(tier.short_s)}"
            if burn.rescaled:
                found.append(
                    f"{name} alarms above {burn.threshold:.0%} bad events:"
                    f" {tier.factor:g} times the budget would be {tier.factor * slo.budget:.0%}"
                )
            if (burn.long_s, burn.short_s) != (tier.long_s, tier.short_s):
                found.append(f"{name} uses {burn.long} and {burn.short}, to expect enough events")
    return found


def check(folder: Path, say: Callable[[str], None]) -> None:
    """promtool on the rules of a folder and their tests, amtool on Alertmanager's configuration where it is there.

    Raises CheckFailed where they find fault.
    """
    rules = [path.name for path in sorted(folder.glob("*.rules.yml"))]
    if not rules:
        raise InputError(f"{folder}: no *.rules.yml in it")
    tests = [path.name for path in sorted(folder.glob("*.rules_test.yml"))]
    configs = [CONFIG_FILE] if (folder / CONFIG_FILE).exists() else []
    failed: dict[str, list[str]] = {}
    for tool, command, files in (
        ("promtool", ("check", "rules"), rules),
        ("promtool", ("test", "rules"), tests),
        ("amtool", ("check-config",), configs),
    ):
        program = shutil.which(tool)
        if program is None:
            say(f"{tool} is not installed: nothing was told by {tool} {' '.join(command)}")
            continue
        for file in files:
            text = _run([program, *command, file], folder)
            say(f"{'FAIL' if text else 'ok  '} {tool} {' '.join(command)} {file}")
            if text:
                say(text)
                failed.setdefault(tool, []).append(file)
    if failed:
        raise CheckFailed("; ".join(f"{tool} finds fault with {', '.join(files)}" for tool, files in failed.items()))


def check_rendered(settings: Settings, options: Options, say: Callable[[str], None]) -> None:
    """Render to a folder that goes away again, and check that."""
    with tempfile.TemporaryDirectory() as folder:
        render(settings, options, Path(folder), say)
        check(Path(folder), say)


def _run(command: Sequence[str], folder: Path) -> str:
    """Output of a command that failed; "" where it did not."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PROMTOOL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {PROMTOOL_TIMEOUT_S} s"
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"


def schema_text() -> str:
    """The JSON Schema of SLO files."""
    return json.dumps(schema(), indent=2) + "\n"
