"""``segwatch rules``: renders rules to a folder, and has promtool check them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alerts.rules import MARK, Links
from alerts.rules_defaults import default_slos, rule_files
from alerts.slo.parse import check_classes, check_retention
from alerts.slo.promql import duration
from alerts.slo.schema import schema
from alerts.slo.spec import Slo
from alerts.slo.windows import fit
from monitor.errors import CheckFailed, InputError, StoreError
from monitor.settings import Settings
from monitor.slo_files import SloFiles, find_files

PROMTOOL_TIMEOUT_S = 600
"""For one file: tests of 30 simulated hours take some 20 s."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``slo_files`` empty: the packaged SLOs."""

    slo_files: Sequence[Path] = ()
    retention_s: int = 31 * 86_400
    job: str = "segwatch"
    runbooks: str = ""
    pages: str = ""


def links(settings: Settings, options: Options) -> Links:
    """Addresses for annotations: those given, else segwatch's own."""
    web = settings.web
    pages = options.pages or web.public_url or f"http://{web.host}:{web.port}"
    return Links(options.runbooks or f"{pages.rstrip('/')}/runbooks", pages)


def read_slos(settings: Settings, options: Options, say: Callable[[str], None]) -> list[Slo]:
    """The SLOs of the files, checked against Prometheus's retention and the classes of the models' baselines."""
    if not options.slo_files:
        return default_slos()
    files = SloFiles(find_files(options.slo_files))
    files.check(check_retention, options.retention_s)
    if any(slo.classes for slo in files.slos):
        files.check(check_classes, known_classes(settings, say))
    return files.slos


def known_classes(settings: Settings, say: Callable[[str], None]) -> Mapping[str, Sequence[str]]:
    """Classes by model, of all active baselines; nothing where there is no store to ask."""
    from monitor.store.store import Store

    try:
        store = Store.open(settings, write=False)
    except (StoreError, InputError) as error:
        say(f"class names are not checked: {error}")
        return {}
    try:
        found: dict[str, list[str]] = {}
        for entry in store.active_baselines().values():
            names = entry.meta.meta.get("classes")
            if isinstance(names, list):
                found.setdefault(entry.meta.model, []).extend(map(str, names))
        return found
    finally:
        store.close()


def render(settings: Settings, options: Options, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Write all rules and their tests; remove those of an earlier rendering that are no longer needed."""
    slos = read_slos(settings, options, say)
    files: dict[str, str] = {}
    for rule_file in rule_files(slos, links(settings, options), options.job):
        files.update(rule_file.render())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in sorted({*folder.glob("*.rules.yml"), *folder.glob("*.rules_test.yml")}):
            if stale.name not in files and stale.read_text(encoding="utf-8").startswith(MARK):
                stale.unlink()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--out {folder}: {error.strerror or error}") from None
    for line in notes(slos):
        say(line)
    return [folder / name for name in files]


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
    """promtool on the rules of a folder and their tests. Raises CheckFailed where it finds fault."""
    promtool = shutil.which("promtool")
    if promtool is None:
        say("promtool is not installed: rules were rendered and not checked")
        return
    rules = sorted(folder.glob("*.rules.yml"))
    if not rules:
        raise InputError(f"{folder}: no *.rules.yml in it")
    failed = []
    for command, files in (("check", rules), ("test", sorted(folder.glob("*.rules_test.yml")))):
        for file in files:
            text = _run([promtool, command, "rules", file.name], folder)
            say(f"{'FAIL' if text else 'ok  '} promtool {command} rules {file.name}")
            if text:
                say(text)
                failed.append(file.name)
    if failed:
        raise CheckFailed(f"promtool finds fault with {', '.join(failed)}")


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
