"""The HTTP interface over a real store and a real server on a free port."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from dashboards.pages import pages
from monitor.errors import SettingsError
from monitor.http_server import HttpServer, serve
from monitor.live_settings import LiveSettings
from monitor.settings import Settings, WebSettings, load_settings
from monitor.store.store import Store
from monitor.web import create_app
from monitor.web_access import check_access
from monitor.web_state import StoreState
from tests.seeded_store import NOW_US, seed

TOKEN = "a-token-of-the-test"


@dataclass
class Service:
    """A running server with everything behind it."""

    store: Store
    settings_file: Path
    server: HttpServer
    client: httpx.Client
    roles: dict[str, bool]


def start(directory: Path, settings_text: str = "", host: str = "127.0.0.1") -> Iterator[Service]:
    file = directory / "segwatch.yaml"
    file.write_text(f"data_dir: {directory}\n{settings_text}")
    settings = load_settings(file, {})
    roles = {"evaluate": True}
    with Store.open(settings, write=True, clock=lambda: NOW_US) as store:
        seed(store)
        state = StoreState(
            store, LiveSettings(settings, lambda: load_settings(file, {})), lambda: roles, wall_us=lambda: NOW_US
        )
        server = serve(create_app(state, host, [pages(state)]), host, 0)
        try:
            with httpx.Client(base_url=server.address, trust_env=False, timeout=10) as client:
                yield Service(store, file, server, client, roles)
        finally:
            server.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that tests only read from."""
    yield from start(tmp_path_factory.mktemp("web"))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Service]:
    """One that a test may break."""
    yield from start(tmp_path)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Service]:
    yield from start(tmp_path, f"web: {{token: {TOKEN}}}\n")


def test_metrics_come_in_the_format_that_is_asked_for(service: Service) -> None:
    openmetrics = service.client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert openmetrics.text.endswith("# EOF\n")
    assert any(f.name == "segwatch_drift_divergence_ratio" for f in text_string_to_metric_families(openmetrics.text))
    classic = service.client.get("/metrics", headers={"accept": "*/*"})
    assert classic.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# EOF" not in classic.text


def test_metrics_are_compressed_only_for_those_who_read_gzip(service: Service) -> None:
    with service.client.stream("GET", "/metrics", headers={"accept-encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    plain = service.client.get("/metrics", headers={"accept-encoding": "identity"})
    assert gzip.decompress(raw) == plain.content
    assert len(raw) < len(plain.content) / 5
    assert "content-encoding" not in plain.headers


def test_a_healthy_and_ready_service_says_so(service: Service) -> None:
    assert service.client.get("/-/healthy").json() == {"healthy": True}
    ready = service.client.get("/-/ready")
    assert ready.status_code == 200
    assert ready.json()["checks"] == [
        {"name": "store", "ok": True, "text": "answers"},
        {"name": "evaluate", "ok": True, "text": "runs"},
    ]


def test_a_service_with_a_role_down_is_not_ready_but_healthy(fresh: Service) -> None:
    fresh.roles["evaluate"] = False
    ready = fresh.client.get("/-/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"][1] == {"name": "evaluate", "ok": False, "text": "does not run"}
    assert fresh.client.get("/-/healthy").status_code == 200


def test_a_store_that_is_away_makes_503_with_one_line_and_no_traceback(fresh: Service) -> None:
    fresh.store.close()
    for file in fresh.settings_file.parent.glob("segwatch.db*"):
        file.unlink()
    fresh.settings_file.parent.joinpath("segwatch.db").mkdir()
    assert fresh.client.get("/-/ready").status_code == 503
    for path in ("/metrics", "/api/v1/status", "/"):
        answer = fresh.client.get(path)
        assert answer.status_code == 503, path
        assert "\n" not in answer.json()["error"]


def test_windows_are_those_of_the_contract(service: Service) -> None:
    windows = service.client.get("/api/v1/windows", params={"model": "street"}).json()["windows"]
    assert [window["alarm"] for window in windows] == [False, True]
    assert windows[1]["slice"] is None
    assert windows[1]["scores"][0] == {
        "signal": "embedding", "js": 0.31, "kl_nats": 0.7, "p_value": 0.0002, "threshold": 0.11, "alarm": True,
    }  # fmt: skip
    newest = service.client.get("/api/v1/windows", params={"model": "street", "limit": 1}).json()["windows"]
    assert newest == windows[1:]
    later = service.client.get("/api/v1/windows", params={"model": "street", "since": windows[1]["start"]})
    assert later.json()["windows"] == windows[1:]


def test_a_model_shows_its_early_detection(service: Service) -> None:
    models = {one["version"]: one["early"] for one in service.client.get("/api/v1/models").json()["models"]}
    assert models["4"] is None
    assert (models["3"]["evidence"], models["3"]["run_length"], models["3"]["alarm"]) == (12.5, 43_200.0, True)
    assert models["3"]["last_alarm"]["attribution"] == [{"signal": "embedding", "share": 1.0}]


def test_a_slice_is_asked_for_by_key_and_value(service: Service) -> None:
    models = service.client.get("/api/v1/models").json()["models"]
    (name,) = {window["slice"] for model in models for window in model["windows"] if window["slice"]}
    found = service.client.get("/api/v1/windows", params={"model": "street", "slice": name}).json()["windows"]
    assert [window["slice"] for window in found] == [name, name]


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 422), ("model=street&limit=0", 422), ("model=street&since=yesterday", 400)],
)
def test_a_bad_question_is_refused_with_a_reason(service: Service, query: str, status: int) -> None:
    answer = service.client.get(f"/api/v1/windows?{query}")
    assert answer.status_code == status
    assert "yesterday" in answer.text or status == 422


def test_the_answers_are_those_that_the_openapi_document_promises(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    for path in ("/api/v1/status", "/api/v1/models", "/api/v1/baselines", "/api/v1/windows"):
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        answer = service.client.get(path, params={"model": "street"} if path.endswith("windows") else {})
        resolver: dict[str, Any] = {**schema, "components": document["components"]}
        jsonschema.validate(answer.json(), resolver)
    assert {"/metrics", "/-/healthy", "/-/ready", "/-/reload"} <= set(document["paths"])


def test_baselines_are_listed_with_the_active_one_marked(service: Service) -> None:
    (baseline,) = service.client.get("/api/v1/baselines").json()["baselines"]
    assert (baseline["model"], baseline["version"], baseline["active"]) == ("street", "3", True)


class TestReload:
    def test_it_takes_effect_at_once_and_says_what_changed(self, fresh: Service) -> None:
        fresh.settings_file.write_text(f"data_dir: {fresh.settings_file.parent}\nweb: {{max_series: 100}}\n")
        answer = fresh.client.post("/-/reload")
        assert answer.json() == {"changed": ["web.max_series"], "restart_needed": []}
        assert "segwatch_exported_series_limit 100" in fresh.client.get("/metrics").text

    def test_what_needs_a_restart_is_said(self, fresh: Service) -> None:
        fresh.settings_file.write_text(f"data_dir: {fresh.settings_file.parent}\nkafka: {{group_id: other}}\n")
        assert fresh.client.post("/-/reload").json()["restart_needed"] == ["kafka.group_id"]

    def test_bad_settings_change_nothing(self, fresh: Service) -> None:
        fresh.settings_file.write_text("web: {max_series: 100, colour: red}\n")
        answer = fresh.client.post("/-/reload")
        assert answer.status_code == 400
        assert "web.colour" in answer.json()["error"]
        assert "segwatch_exported_series_limit 20000" in fresh.client.get("/metrics").text

    def test_the_token_changes_at_once_and_cannot_be_taken_from_an_open_address(self, tmp_path: Path) -> None:
        for service in start(tmp_path, f"web: {{token: {TOKEN}, host: 0.0.0.0}}\n", host="0.0.0.0"):
            client = httpx.Client(base_url=f"http://127.0.0.1:{service.server.port}", trust_env=False)
            with client:
                old = {"authorization": f"Bearer {TOKEN}"}
                service.settings_file.write_text(f"data_dir: {tmp_path}\nweb: {{host: 127.0.0.1}}\n")
                refused = client.post("/-/reload", headers=old)
                assert refused.status_code == 400
                assert "web.token" in refused.json()["error"]
                service.settings_file.write_text(f"data_dir: {tmp_path}\nweb: {{token: new, host: 0.0.0.0}}\n")
                assert client.post("/-/reload", headers=old).json()["changed"] == ["web.token"]
                assert client.get("/api/v1/status", headers=old).status_code == 401
                assert client.get("/api/v1/status", headers={"authorization": "Bearer new"}).status_code == 200

    def test_a_get_does_not_reload(self, fresh: Service) -> None:
        assert fresh.client.get("/-/reload").status_code == 405

    def test_a_page_from_elsewhere_cannot_do_it(self, fresh: Service) -> None:
        assert fresh.client.post("/-/reload", headers={"origin": "https://example.org"}).status_code == 403
        assert fresh.client.post("/-/reload", headers={"origin": fresh.server.address}).status_code == 200


class TestAccess:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "segwatch.example"])
    def test_an_open_address_without_a_token_is_refused_by_name(self, host: str) -> None:
        with pytest.raises(SettingsError, match=r"web\.token"):
            check_access(WebSettings(host=host))
        check_access(WebSettings(host=host, token=TOKEN))

    @pytest.mark.parametrize(
        ("web", "name"),
        [
            (WebSettings(proxy_user_header="X-Forwarded-User"), r"web\.trusted_proxies"),
            (WebSettings(proxy_user_header="X-User", trusted_proxies=("10.0.0.0/99",)), r"web\.trusted_proxies"),
            (WebSettings(tls_certificate="cert.pem"), r"web\.tls_key"),
            (WebSettings(tokens_file="/does/not/exist"), r"web\.tokens_file"),
        ],
    )
    def test_a_way_to_sign_in_that_cannot_work_is_refused_by_name(self, web: WebSettings, name: str) -> None:
        with pytest.raises(SettingsError, match=name):
            check_access(web)

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
    def test_loopback_needs_none(self, host: str) -> None:
        check_access(WebSettings(host=host))

    @pytest.mark.parametrize("path", ["/metrics", "/", "/api/v1/status", "/openapi.json", "/static/style.css", "/no"])
    def test_with_a_token_every_path_wants_it(self, guarded: Service, path: str) -> None:
        refused = guarded.client.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        for header in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", TOKEN):
            assert guarded.client.get(path, headers={"authorization": header}).status_code == 401
        allowed = guarded.client.get(path, headers={"authorization": f"Bearer {TOKEN}"})
        assert allowed.status_code == (404 if path == "/no" else 200)

    def test_a_post_wants_it_too(self, guarded: Service) -> None:
        assert guarded.client.post("/-/reload").status_code == 401

    @pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
    def test_health_never_does(self, guarded: Service, path: str) -> None:
        assert guarded.client.get(path).status_code == 200

    @pytest.mark.parametrize("path", ["/-/healthy/../../metrics", "//-/healthy", "/-/healthy/", "/-/ready%2f..%2f"])
    def test_no_spelling_of_a_health_path_opens_another(self, guarded: Service, path: str) -> None:
        with socket.create_connection((guarded.server.host, guarded.server.port), timeout=5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 401 ")

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8600", ""])
    def test_a_foreign_name_that_points_here_is_refused(self, service: Service, host: str) -> None:
        assert service.client.get("/api/v1/status", headers={"host": host}).status_code == 421


class TestOverview:
    def test_it_shows_models_windows_scores_and_alarms(self, service: Service) -> None:
        page = service.client.get("/").text
        for words in ("street", "version 3", "version 4", "Drift alarm", "No closed window yet", "embedding", "0.31"):
            assert words in page, words
        assert "2026-11-22" in page

    def test_nothing_that_a_record_says_becomes_markup(self, service: Service) -> None:
        page = service.client.get("/").text
        assert "<script" not in page
        assert "&lt;script&gt;" in page

    def test_the_policy_allows_no_script_and_the_page_needs_none(self, service: Service) -> None:
        answer = service.client.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "unsafe" not in policy
        for forbidden in ("<script", "style=", "onclick", "onload", "javascript:"):
            assert forbidden not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"

    def test_the_style_is_there_and_knows_the_dark(self, service: Service) -> None:
        style = service.client.get("/static/style.css")
        assert style.headers["content-type"].startswith("text/css")
        assert "prefers-color-scheme: dark" in style.text


class TestServer:
    def test_an_address_in_use_is_said_with_the_settings_name(self, service: Service) -> None:
        with pytest.raises(SettingsError, match=r"web\.host, web\.port: cannot listen on 127\.0\.0\.1"):
            serve(create_app_of(service), "127.0.0.1", service.server.port)

    def test_it_stops_and_gives_the_port_back(self, service: Service) -> None:
        first = serve(create_app_of(service), "127.0.0.1", 0)
        with httpx.Client(trust_env=False) as client:
            assert client.get(f"{first.address}/-/healthy").status_code == 200
        first.stop()
        assert not first.running
        second = serve(create_app_of(service), "127.0.0.1", first.port)
        assert second.port == first.port
        second.stop()

    def test_it_serves_tls_with_the_certificate_that_is_set(self, service: Service, tmp_path: Path) -> None:
        certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*make, *names, *files], check=True, capture_output=True)
        server = serve(create_app_of(service), "127.0.0.1", 0, (str(certificate), str(key)))
        try:
            trusted = ssl.create_default_context(cafile=str(certificate))
            with httpx.Client(trust_env=False, verify=trusted) as client:
                assert server.address.startswith("https://")
                assert client.get(f"{server.address}/-/healthy").status_code == 200
        finally:
            server.stop()
        with pytest.raises(SettingsError, match=r"web\.tls_certificate, web\.tls_key"):
            serve(create_app_of(service), "127.0.0.1", 0, (str(certificate), str(certificate)))

    def test_it_serves_ipv6_loopback_where_the_machine_has_it(self, service: Service) -> None:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            assert serve_fails_by_name(service)
            return
        server = serve(create_app_of(service), "::1", 0)
        with httpx.Client(trust_env=False) as client:
            assert json.loads(client.get(f"{server.address}/-/healthy").text) == {"healthy": True}
        server.stop()


def create_app_of(service: Service) -> Any:
    settings = Settings()
    return create_app(StoreState(service.store, LiveSettings(settings, lambda: settings)), "127.0.0.1")


def serve_fails_by_name(service: Service) -> bool:
    with pytest.raises(SettingsError, match="cannot listen on ::1"):
        serve(create_app_of(service), "::1", 0)
    return True
