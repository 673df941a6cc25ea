"""Whoever is told: an HTTP server that keeps what Alertmanager sends, as a webhook and as Slack, for each role."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alerts.alertmanager.receivers import ROLES

PEOPLE = ("ml_oncall", "sre", "tickets")


@dataclass(frozen=True)
class Notification:
    """``body``: a webhook's JSON, or Slack's attachment."""

    way: str
    role: str
    body: dict[str, Any]
    at_s: float

    def names(self) -> list[str]:
        """Alert names, of a webhook."""
        return sorted(alert["labels"]["alertname"] for alert in self.body["alerts"])


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    """Alertmanager sends all it has at once: of the usual 5 some would wait for TCP to try again, for seconds."""


class Notified:
    """The server; ``with Notified() as told: told.receivers()``."""

    def __init__(self) -> None:
        self._all: list[Notification] = []
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer._keep(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _keep(self, path: str, body: dict[str, Any]) -> None:
        _, way, role = path.split("/")
        with self._lock:
            self._all.append(Notification(way, role, body["attachments"][0] if way == "slack" else body, time.time()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def receivers(self) -> dict[str, Any]:
        """A receivers file: each role by webhook; people by Slack, too."""
        return {
            role: {
                "webhook_configs": [{"url": f"{self.url}/webhook/{role}"}],
                **(
                    {"slack_configs": [{"api_url_file": self._slack(role), "channel": "#alerts"}]}
                    if role in PEOPLE
                    else {}
                ),
            }
            for role in ROLES
        }

    def _slack(self, role: str) -> str:
        file = Path(self._folder.name) / role
        file.write_text(f"{self.url}/slack/{role}")
        return str(file)

    def to(self, role: str, way: str = "webhook") -> list[Notification]:
        """What a role has been told so far."""
        with self._lock:
            return [one for one in self._all if one.role == role and one.way == way]

    def texts(self, role: str) -> list[str]:
        """Title and text of each Slack message."""
        return [f"{one.body['title']}\n{one.body['text']}" for one in self.to(role, "slack")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()
