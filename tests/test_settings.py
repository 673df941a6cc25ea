"""Settings: defaults, file, environment, and errors that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.errors import SettingsError
from monitor.settings import Settings, load_settings, setting_names, variable_of


def write(folder: Path, text: str) -> Path:
    path = folder / "segwatch.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_run_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environ={})
    assert settings == Settings()
    assert settings.kafka.bootstrap_servers == ""
    assert settings.data_dir == ".segwatch"


def test_the_environment_overrides_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "web: {port: 1, host: 127.0.0.2}\nkafka:\n")
    settings = load_settings(
        path, {"SEGWATCH_WEB_PORT": "2", "SEGWATCH_WINDOWS_LENGTHS_SECONDS": "600, 1200", "OTHER": "x"}
    )
    assert (settings.web.port, settings.web.host) == (2, "127.0.0.2")
    assert settings.windows.lengths_seconds == (600, 1200)


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    assert load_settings(write(tmp_path, ""), {"SEGWATCH_WEB_TOKEN_FILE": str(secret)}).web.token == "s3cret"
    with pytest.raises(SettingsError, match="SEGWATCH_WEB_TOKEN_FILE: cannot read"):
        load_settings(write(tmp_path, ""), {"SEGWATCH_WEB_TOKEN_FILE": str(tmp_path / "none")})


def test_every_setting_has_a_variable_of_its_own() -> None:
    variables = [variable_of(name) for name in setting_names()]
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [
        ("web: {prot: 1}", {}, r"no setting has the name web\.prot"),
        ("wbe: {}", {}, "no setting has the name wbe"),
        ("web: 3", {}, "web is a section, got int"),
        ("- a", {}, "expected a mapping of settings, got list"),
        ("web: {port: many}", {}, r"web\.port: Expected `int`"),
        ("web: {port: 70000}", {}, r"web\.port: Expected `int` <= 65535"),
        ("a: [", {}, "not YAML"),
        ("windows: {lengths_seconds: [601]}", {}, r"windows\.lengths_seconds: 601 is no multiple"),
        ("store: {retention_days: 1}", {}, r"allowed_lateness_seconds \(604800\) is longer than store\.retention_days"),
        ("windows: {lengths_seconds: []}", {}, r"windows\.lengths_seconds is empty"),
        ("", {"SEGWATCH_WEB_PORT": "x"}, "SEGWATCH_WEB_PORT: Expected `int`"),
    ],
)
def test_an_error_names_the_file_and_key_or_the_variable(
    tmp_path: Path, text: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path, text), environ)


def test_a_settings_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        load_settings(tmp_path / "none.yaml", {})


def test_a_variable_that_no_setting_has_is_named_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_settings(write(tmp_path, ""), {"SEGWATCH_SERVICE_HOST": "10.0.0.1"}) == Settings()
    assert "SEGWATCH_SERVICE_HOST: no setting has this name" in caplog.text
