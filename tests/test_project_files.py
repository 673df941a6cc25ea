"""What the project's own files promise, checked against them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from monitor.cli import cli
from monitor.metrics import FAMILIES
from monitor.settings import SECTIONS, setting_names, variable_of
from monitor.tallies import CONFIDENCE_BUCKETS, LATENCY_BUCKETS
from tests.real.component import unavailable

ROOMS = ("monitor", "detectors", "embeddings", "alerts", "dashboards")


@pytest.fixture(scope="module")
def project(checkout: Path) -> dict[str, Any]:
    return tomllib.loads((checkout / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def constraints(checkout: Path) -> dict[str, Requirement]:
    lines = [line for line in (checkout / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    found: dict[str, Requirement] = {canonicalize_name(Requirement(one).name): Requirement(one) for one in lines}
    assert len(found) == len(lines), "a package is there twice"
    return found


@pytest.fixture(scope="module")
def compose(checkout: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((checkout / "docker-compose.yml").read_text())
    return found


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def requirements(project: dict[str, Any]) -> Iterator[Requirement]:
    extras = project["project"]["optional-dependencies"]
    for text in project["project"]["dependencies"] + extras["dev"] + extras["report"]:
        yield Requirement(text)


class TestConstraints:
    def test_every_one_is_one_exact_public_version(self, constraints: dict[str, Requirement]) -> None:
        for requirement in constraints.values():
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            # A local version (2.15.0+cpu) would refuse the other builds of the same release.
            assert Version(specifier.version).local is None, requirement
            assert requirement.url is None

    def test_every_dependency_is_pinned_within_its_range(
        self, project: dict[str, Any], constraints: dict[str, Requirement]
    ) -> None:
        for requirement in requirements(project):
            pinned = next(iter(constraints[canonicalize_name(requirement.name)].specifier)).version
            assert requirement.specifier.contains(pinned), f"{requirement} does not allow {pinned}"

    def test_every_dependency_has_a_range_with_both_ends(self, project: dict[str, Any]) -> None:
        for requirement in requirements(project):
            assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}, requirement

    def test_any_build_of_torch_fits(self, constraints: dict[str, Requirement]) -> None:
        torch = constraints["torch"].specifier
        version = next(iter(torch)).version
        assert torch.contains(f"{version}+cpu")
        assert torch.contains(f"{version}+cu130")

    def test_torchs_own_exact_requirements_are_left_to_it(self, constraints: dict[str, Requirement]) -> None:
        assert not [name for name in constraints if name.startswith(("nvidia-", "cuda-")) or name == "triton"]

    def test_no_host_and_no_option_is_in_it(self, checkout: Path) -> None:
        text = (checkout / "constraints.txt").read_text()
        assert "://" not in text
        assert not re.search(r"^\s*--?\w", text, re.MULTILINE)

    def test_an_installed_torch_is_kept_whatever_its_version(self, checkout: Path, tmp_path: Path) -> None:
        for name, version in (("torch", "2.9.1+cpu"), ("torchvision", "0.24.1+cpu")):
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" -S "$@"\n')
        python.chmod(0o755)
        script = checkout / "tools" / "constraints-in-force.sh"
        lines = subprocess.check_output(["bash", str(script), str(python)], text=True, timeout=60).splitlines()
        assert [line for line in lines if line.startswith("torch")] == ["torch==2.9.1+cpu", "torchvision==0.24.1+cpu"]
        assert any(line.startswith("numpy==") for line in lines)


class TestPackage:
    def test_every_file_that_is_no_code_is_packaged(self, checkout: Path, project: dict[str, Any]) -> None:
        patterns: dict[str, list[str]] = project["tool"]["setuptools"].get("package-data", {})
        forgotten = []
        for room in ROOMS:
            for file in (checkout / room).rglob("*"):
                if file.is_dir() or file.suffix in (".py", ".pyc") or "__pycache__" in file.parts:
                    continue
                owners = [(checkout / package.replace(".", "/"), globs) for package, globs in patterns.items()]
                if not any(
                    file.is_relative_to(folder) and any(file in folder.glob(glob) for glob in globs)
                    for folder, globs in owners
                ):
                    forgotten.append(str(file.relative_to(checkout)))
        assert not forgotten, "not in tool.setuptools.package-data of pyproject.toml"

    def test_every_folder_with_code_is_a_package(self, checkout: Path) -> None:
        folders = {file.parent for room in ROOMS for file in (checkout / room).rglob("*.py")}
        assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]

    def test_the_version_is_semver_and_the_licence_is_whole(self, checkout: Path) -> None:
        from monitor.version import __version__

        assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
        licence = (checkout / "LICENSE").read_text()
        assert "Apache License" in licence
        assert "END OF TERMS AND CONDITIONS" in licence
        assert "Apache License" in (checkout / "NOTICE").read_text()
        assert "[Unreleased]" in (checkout / "CHANGELOG.md").read_text() or __version__ in (
            checkout / "CHANGELOG.md"
        ).read_text()


class TestDocs:
    def test_every_setting_is_there_with_its_default_and_its_variable(self, checkout: Path) -> None:
        text = (checkout / "docs" / "settings.md").read_text()
        for name in setting_names():
            assert f"| `{name}` |" in text, name
            assert f"`{variable_of(name)}`" in text, name
        for section, kind in SECTIONS.items():
            for field in msgspec.structs.fields(kind):
                (row,) = re.findall(rf"^\| `{section}\.{field.name}` \| (.*?) \|", text, re.MULTILINE)
                if isinstance(field.default, str):
                    assert row == (f"`{field.default}`" if field.default else "empty")

    def test_the_settings_are_described_as_they_are_now(self, checkout: Path) -> None:
        command = [sys.executable, "tools/settings_doc.py"]
        written = subprocess.check_output(command, cwd=checkout, text=True, timeout=60)
        assert written == (checkout / "docs" / "settings.md").read_text(), (
            "run: python tools/settings_doc.py > docs/settings.md"
        )

    def test_every_metric_is_there_with_its_type_and_labels(self, checkout: Path) -> None:
        text = (checkout / "docs" / "metrics.md").read_text()
        for family in FAMILIES:
            (row,) = re.findall(rf"^\| `{family.series_name}` \| (\w+).*? \| (.*?) \|", text, re.MULTILINE)
            labels = tuple(re.findall(r"`(\w+)`", row[1]))
            assert (row[0], labels) == (family.kind, family.labels), family.name

    def test_no_metric_is_there_that_does_not_exist(self, checkout: Path) -> None:
        text = (checkout / "docs" / "metrics.md").read_text()
        known = {family.series_name for family in FAMILIES}
        assert set(re.findall(r"`(segwatch_\w+)`", text)) == known

    def test_the_buckets_are_those_of_the_code(self, checkout: Path) -> None:
        text = (checkout / "docs" / "metrics.md").read_text()
        assert ", ".join(f"{bound:g}" for bound in LATENCY_BUCKETS) in text
        assert list(CONFIDENCE_BUCKETS) == [round(0.1 * i, 1) for i in range(1, 11)]


class TestCompose:
    def test_every_foreign_image_is_pinned_to_a_full_version(self, compose: dict[str, Any]) -> None:
        for name, service in compose["services"].items():
            if "build" in service:
                assert service["image"] == "segwatch:local"
                continue
            _, _, tag = service["image"].rpartition(":")
            assert re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"

    def test_every_lasting_service_has_a_health_check(self, compose: dict[str, Any]) -> None:
        once = ("topics", "rules")
        lasting = {name: service for name, service in compose["services"].items() if name not in once}
        assert [name for name, service in lasting.items() if "test" not in service.get("healthcheck", {})] == []

    def test_every_database_has_a_volume_that_is_declared(self, compose: dict[str, Any]) -> None:
        for name in ("kafka", "postgres", "prometheus", "alertmanager", "grafana"):
            mounted = {volume.split(":")[0] for volume in compose["services"][name]["volumes"]}
            assert mounted & set(compose["volumes"]), name

    def test_no_secret_is_in_the_file(self, compose: dict[str, Any], checkout: Path) -> None:
        for service in compose["services"].values():
            for variable, value in service.get("environment", {}).items():
                if re.search("PASSWORD|TOKEN|SECRET|KEY", variable):
                    assert str(value).startswith("/run/secrets/"), variable
        assert all(set(secret) == {"environment"} for secret in compose["secrets"].values())
        # None is given away as an example, either.
        example = (checkout / "deploy" / "env.example").read_text()
        assert not re.findall(r"^\w+=.+$", example, re.MULTILINE)

    def test_the_roles_are_there_and_the_gpu_is_a_profile(self, compose: dict[str, Any]) -> None:
        services = compose["services"]
        for role in ("ingest", "evaluate", "web"):
            assert services[role]["command"] == ["run", "--role", role]
        assert services["ingest"]["deploy"]["replicas"] >= 2
        assert services["ingest-gpu"]["profiles"] == ["gpu"]
        assert services["topics"]["command"] == ["topics", "create"]

    def test_nothing_listens_beyond_this_machine(self, compose: dict[str, Any]) -> None:
        for service in compose["services"].values():
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))

    def test_every_variable_is_a_setting(self, compose: dict[str, Any]) -> None:
        known = {variable_of(name) for name in setting_names()}
        for service in compose["services"].values():
            for variable in service.get("environment", {}):
                if variable.startswith("SEGWATCH_"):
                    assert variable.removesuffix("_FILE") in known

    def test_files_that_are_mounted_are_there(self, compose: dict[str, Any], checkout: Path) -> None:
        for service in compose["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (checkout / source).exists(), source


class TestConfigurations:
    def test_prometheus_takes_its_configuration(self, checkout: Path) -> None:
        promtool = shutil.which("promtool")
        if promtool is None:
            unavailable("promtool", "not on the PATH (Debian's package prometheus has it)")
        command = [promtool, "check", "config", "--syntax-only", str(checkout / "deploy" / "prometheus.yml")]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert checked.returncode == 0, checked.stderr

    def test_alertmanager_takes_what_compose_renders(
        self, checkout: Path, compose: dict[str, Any], tmp_path: Path
    ) -> None:
        amtool = shutil.which("amtool")
        if amtool is None:
            unavailable("amtool", "not on the PATH (Debian's package prometheus-alertmanager has it)")
        options = compose["services"]["rules"]["command"][2:]
        places = {"/var/lib/segwatch/rules": str(tmp_path), "/etc/segwatch": str(checkout / "deploy")}
        for there, here in places.items():
            options = [option.replace(there, here) for option in options]
        rendered = CliRunner().invoke(cli, ["rules", "render", *options])
        assert rendered.exit_code == 0, rendered.output
        (actions,) = [one for one in read(tmp_path / "alertmanager.yml")["receivers"] if one["name"] == "actions"]
        assert actions["webhook_configs"][0]["url"] == "http://web:8600/webhooks/alertmanager"
        mounted = compose["services"]["alertmanager"]["volumes"]
        assert "rules:/etc/alertmanager:ro" in mounted
        assert read(checkout / "deploy" / "prometheus.yml")["rule_files"] == ["/etc/prometheus/rules/*.rules.yml"]
        assert "rules:/etc/prometheus/rules:ro" in compose["services"]["prometheus"]["volumes"]
        command = [amtool, "check-config", str(tmp_path / "alertmanager.yml")]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_one_address_is_scraped_under_a_constant_instance(self, checkout: Path) -> None:
        jobs = yaml.safe_load((checkout / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
        (job,) = [job for job in jobs if job["job_name"] == "segwatch"]
        assert job["static_configs"] == [{"targets": ["web:8600"], "labels": {"instance": "segwatch"}}]

    def test_grafana_reads_from_that_prometheus(self, checkout: Path) -> None:
        text = (checkout / "deploy" / "grafana" / "datasources" / "prometheus.yml").read_text()
        (source,) = yaml.safe_load(text)["datasources"]
        assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")


class TestDockerfile:
    def test_it_runs_as_somebody_without_rights(self, checkout: Path) -> None:
        lines = (checkout / "Dockerfile").read_text().splitlines()
        last_stage = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]
        (user,) = [line.split()[1] for line in last_stage if line.startswith("USER ")]
        assert user.split(":")[0] not in ("root", "0")

    def test_its_base_is_pinned_and_it_checks_its_health(self, checkout: Path) -> None:
        text = (checkout / "Dockerfile").read_text()
        bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
        assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base) for base in bases)
        assert "HEALTHCHECK" in text
        assert "ARG TORCH_INDEX_URL" in text

    def test_the_context_leaves_secrets_out(self, checkout: Path) -> None:
        lines = (checkout / ".dockerignore").read_text().splitlines()
        assert "*" in lines
        assert ".env" in lines
        for room in ROOMS:
            assert f"!{room}" in lines


class TestMakefile:
    def test_ci_runs_what_a_person_runs(self, checkout: Path) -> None:
        script = checkout / ".ci" / "run"
        assert script.stat().st_mode & 0o111
        assert script.read_text().splitlines()[-1] == "exec make test"

    @pytest.mark.parametrize("target", ["install", "demo", "test", "check", "bench", "clean"])
    def test_every_target_can_be_planned(self, checkout: Path, target: str) -> None:
        planned = subprocess.run(["make", "-n", target], cwd=checkout, capture_output=True, text=True, timeout=60)
        assert planned.returncode == 0, planned.stderr

    def test_an_old_python_is_refused_in_one_line(self, checkout: Path, tmp_path: Path) -> None:
        old = tmp_path / "python3.8"
        old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.2 && exit 0\nexit 1\n')
        old.chmod(0o755)
        shutil.copy(checkout / "Makefile", tmp_path)
        refused = subprocess.run(
            ["make", "venv", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode != 0
        assert "is Python 3.8.2; segwatch needs Python >= 3.11" in refused.stderr
        assert not (tmp_path / ".venv").exists()

    def test_the_scripts_are_valid_bash(self, checkout: Path) -> None:
        for script in [*(checkout / "tools").glob("*.sh"), checkout / ".ci" / "run"]:
            subprocess.run(["bash", "-n", str(script)], check=True, timeout=10)
