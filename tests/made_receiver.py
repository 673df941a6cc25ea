"""A receiver of webhooks on a free port, which notes what it gets and answers as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Got:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Say = Callable[[Got], tuple[int, Any] | tuple[int, Any, dict[str, str]]]


@dataclass
class MadeReceiver:
    """``say`` gives status, JSON and headers of an answer."""

    say: Say
    url: str = ""
    got: list[Got] = field(default_factory=list)

    def of(self, method: str, path: str) -> list[Got]:
        return [one for one in self.got if (one.method, one.path) == (method, path)]


@contextmanager
def receiver(say: Say = lambda _: (204, None)) -> Iterator[MadeReceiver]:
    """A running receiver."""
    made = MadeReceiver(say)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            got = Got(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            made.got.append(got)
            status, value, *more = made.say(got)
            text = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            for name, header in (more[0] if more else {}).items():
                self.send_header(name, header)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _any

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
