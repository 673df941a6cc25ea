"""A real Alertmanager posts to a real server: with the token, each firing once, however often it repeats itself."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from monitor.http_server import serve
from monitor.live_settings import LiveSettings
from monitor.settings import load_settings
from monitor.store.store import Store
from monitor.web import create_app
from monitor.web_alerts import alerts_router
from monitor.web_state import StoreState
from tests.embedded import eventually
from tests.real.alertmanager_server import AlertmanagerServer
from tests.seeded_store import seed

TOKEN = "a-token-of-the-test-that-is-long-enough"
TOPIC = "segwatch.actions"


def config(address: str, token_file: Path) -> str:
    """Repeats and group updates every second: what takes hours in production."""
    webhook = {
        "url": f"{address}/webhooks/alertmanager",
        "send_resolved": True,
        "http_config": {"authorization": {"credentials_file": str(token_file)}},
    }
    route = {"receiver": "actions", "group_by": ["model"], "group_wait": "100ms", "group_interval": "1s"}
    receivers = [{"name": "actions", "webhook_configs": [webhook]}]
    return yaml.safe_dump({"route": {**route, "repeat_interval": "1s"}, "receivers": receivers})


def test_a_firing_is_one_action_through_repeats_and_its_end(tmp_path: Path) -> None:
    file, token_file = tmp_path / "segwatch.yaml", tmp_path / "token"
    file.write_text(f"data_dir: {tmp_path}\nweb: {{token: {TOKEN}}}\n")
    token_file.write_text(TOKEN)
    live = LiveSettings(load_settings(file, {}), lambda: load_settings(file, {}))
    posts = 0
    with Store.open(live.current, write=True) as store:
        seed(store)
        app = create_app(StoreState(store, live), "127.0.0.1", [alerts_router(store, live)])

        async def counted(scope, receive, send):  # type: ignore[no-untyped-def]
            nonlocal posts
            posts += scope["type"] == "http"
            await app(scope, receive, send)

        server = serve(counted, "127.0.0.1", 0)  # type: ignore[arg-type]
        try:
            with AlertmanagerServer.start({"alertmanager.yml": config(server.address, token_file)}) as alertmanager:
                began = datetime.now(UTC)

                def post(action: str, ends: datetime) -> None:
                    labels = {"alertname": "Shift", "model": "street", "version": "3", "action": action}
                    times = {"startsAt": began.isoformat(), "endsAt": ends.isoformat()}
                    alertmanager.post([{"labels": labels, "annotations": {"summary": "It shifted."}, **times}])

                post("relabel", began + timedelta(hours=1))
                eventually("an action", lambda: len(store.actions.queued(TOPIC)) == 1)
                post("rollback", began + timedelta(hours=1))  # joins the group, which is sent again with both
                eventually("both", lambda: len(store.actions.queued(TOPIC)) == 2)
                before = posts
                eventually("repeats", lambda: posts >= before + 2)
                post("relabel", datetime.now(UTC) - timedelta(seconds=1))
                before = posts
                eventually("its end", lambda: posts >= before + 2)
                time.sleep(0.5)
                found = [one.message.value or b"" for one in store.actions.queued(TOPIC)]
                assert sorted(b"rollback_requested" in one for one in found) == [False, True]
        finally:
            server.stop()
