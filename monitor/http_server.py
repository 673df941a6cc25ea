"""Runs an ASGI application in a thread of its own, and stops it cleanly."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from monitor.errors import SettingsError

STOP_S: Final = 5
"""A scrape takes well below a second; a client that keeps its answer waiting longer is cut off."""


@dataclass(frozen=True)
class HttpServer:
    """A running server. ``port`` is the real one, also where 0 (any free port) was asked for."""

    host: str
    port: int
    scheme: str
    _server: uvicorn.Server
    _thread: threading.Thread

    @property
    def address(self) -> str:
        """What a person opens: ``http://127.0.0.1:8600``."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{name}:{self.port}"

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Take no more requests, let the running ones end, and return when all has ended."""
        self._server.should_exit = True
        self._thread.join(STOP_S + 5)


def serve(app: ASGIApp, host: str, port: int, tls: tuple[str, str] | None = None) -> HttpServer:
    """Start serving; returns when requests are taken.

    ``tls``: files of the certificate and its key, PEM; None for plain HTTP. Raises SettingsError where the address
    cannot be had, or the files cannot be used.
    """
    certificate, key = tls or (None, None)
    if certificate is not None:
        _check_certificate(certificate, key)
    bound = _bind(host, port)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,  # monitor/telemetry.py has set up logging
        access_log=False,  # one line for each scrape says nothing
        server_header=False,
        date_header=True,
        # uvicorn would believe any program on this machine whose request it is; monitor/web_address.py asks who may.
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_S,
        limit_concurrency=256,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = uvicorn.Server(config)

    def run() -> None:
        with closing(bound):
            server.run(sockets=[bound])

    thread = threading.Thread(target=run, name="http", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    if not server.started:
        raise SettingsError(f"web.host, web.port: the server on {host}:{port} did not start")
    return HttpServer(host, bound.getsockname()[1], "https" if certificate else "http", server, thread)


def _check_certificate(certificate: str, key: str | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"web.tls_certificate, web.tls_key: {error}") from None


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            # A restarted service must not wait for the old one's last connections to time out.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise SettingsError(f"web.host, web.port: cannot listen on {host}:{port}: {error.strerror or error}") from None
    return bound
