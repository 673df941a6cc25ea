"""Images by reference: what a record may make segwatch read, on real files and a real HTTPS server."""

from __future__ import annotations

import io
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import BadRecord
from monitor.records import fetch_image
from monitor.records.uris import check_uri, parse_uri

PREFIXES = ("file:/data/images/", "https://images.example/cams", "https://images.example:8443/", "s3://bucket/live/")


def refused(uri: str, prefixes: tuple[str, ...] = PREFIXES) -> BadRecord:
    with pytest.raises(BadRecord) as caught:
        check_uri(uri, prefixes)
    assert caught.value.reason == "uri_refused"
    assert caught.value.detail.isprintable()
    return caught.value


@pytest.mark.parametrize(
    "uri",
    [
        "file:/data/images/1.jpg", "file:///data/images/a/b.jpg", "file://localhost/data/images/1.jpg",
        "FILE:///data/images/1.jpg", "file:///data/images/stra%C3%9Fe.jpg", "file:///data/images/straße.jpg",
        "https://images.example/cams/1.jpg", "https://IMAGES.example/cams/1.jpg", "https://images.example:443/cams/1.jpg",
        "https://images.example/cams?id=7&signature=abc", "https://images.example:8443/any/1.jpg",
        "s3://bucket/live/2026/1.jpg",
    ],
)  # fmt: skip
def test_what_lies_below_a_prefix_is_allowed(uri: str) -> None:
    check_uri(uri, PREFIXES)


@pytest.mark.parametrize(
    "uri",
    [
        "", " ", "x", "/data/images/1.jpg", "data:image/png;base64,AAAA", "http://images.example/cams/1.jpg",
        "ftp://images.example/cams/1.jpg", "gopher://x/", "javascript:alert(1)", "file:data/images/1.jpg", "file:",
        "file:///etc/passwd", "file:///data/images-old/1.jpg", "file:///data/image", "file:///data/images/../../etc/passwd",
        "file:///data/images/./1.jpg", "file:///data/images//1.jpg", "file:////data/images/1.jpg",
        "file:///data/images/%2e%2e/%2E%2E/etc/passwd", "file:///data/images/..%2f..%2fetc/passwd",
        "file:///data/images/%252e%252e/etc/passwd", "file:///data/images/%00.jpg", "file:///data/images/%zz.jpg",
        "file:///data/images/%", "file:///data/images/%ff.jpg", "file:///data/images\\..\\..\\etc/passwd",
        "file:///data/images/1.jpg?x=1", "file:///data/images/1.jpg#x", "file://evil.example/data/images/1.jpg",
        "file:///data/images/a b.jpg", "file:///data/images/a\n.jpg", "file:///data/images/\ud800",
        "https:///cams/1.jpg", "https://images.example/camshaft/1.jpg", "https://images.example.evil.org/cams/1.jpg",
        "https://images.example@evil.org/cams/1.jpg", "https://user:password@images.example/cams/1.jpg",
        "https://evil.org/?https://images.example/cams/1.jpg", "https://evil.org/#@images.example/cams/1.jpg",
        "https://images.example:444/cams/1.jpg", "https://images.example:99999/cams/1.jpg", "https://images.example:x/cams/",
        "https://images.example/cams/../secret", "https://images.example/cams/%2e%2e/secret", "https://[::1/cams/1.jpg",
        "https://images.example\\@evil.org/cams/1.jpg", "https://imäges.example/cams/1.jpg", "https://169.254.169.254/latest",
        "s3://other/live/1.jpg", "s3://bucket/liver/1.jpg", "s3://bucket", "s3:///live/1.jpg", "x" * 5000,
    ],
)  # fmt: skip
def test_everything_else_is_refused(uri: str) -> None:
    refused(uri)


def test_by_default_nothing_is_allowed() -> None:
    assert "allows none" in refused("https://images.example/cams/1.jpg", ()).detail


def test_a_signed_urls_secret_stays_out_of_the_message() -> None:
    assert "secret" not in refused("https://evil.org/1.jpg?signature=secret").detail


@given(st.text(max_size=60) | st.text("fileshtp3:/.%2eE@\\?#a", max_size=40).map("file:".__add__))
def test_any_text_is_judged_and_what_passes_is_plain(uri: str) -> None:
    try:
        location = parse_uri(uri)
    except BadRecord as bad:
        assert bad.reason == "uri_refused"
        return
    assert location.scheme in ("file", "s3", "https")
    assert ".." not in location.path.split("/")
    assert "\0" not in location.path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    (images / "a").mkdir(parents=True)
    (images / "a" / "1.jpg").write_bytes(b"picture")
    (tmp_path / "secret").write_bytes(b"secret")
    return images


class TestFiles:
    def read(self, folder: Path, name: str, max_bytes: int = 100) -> bytes:
        return fetch_image(f"file://{folder}/{name}", (f"file:{folder}/",), max_bytes)

    def test_a_file_below_the_prefix_is_read(self, folder: Path) -> None:
        assert self.read(folder, "a/1.jpg") == b"picture"

    def test_a_link_is_followed_within_the_folder_only(self, folder: Path) -> None:
        (folder / "inside.jpg").symlink_to("a/1.jpg")
        (folder / "outside.jpg").symlink_to("../secret")
        (folder / "up").symlink_to("..")
        assert self.read(folder, "inside.jpg") == b"picture"
        for name in ("outside.jpg", "up/secret"):
            with pytest.raises(BadRecord, match="uri_refused: .*a symbolic link leads out"):
                self.read(folder, name)

    def test_the_allowed_folder_may_itself_be_a_link(self, folder: Path) -> None:
        linked = folder.parent / "linked"
        linked.symlink_to(folder)
        assert self.read(linked, "a/1.jpg") == b"picture"

    def test_a_file_beyond_the_limit_is_too_large(self, folder: Path) -> None:
        with pytest.raises(BadRecord, match="image_too_large"):
            self.read(folder, "a/1.jpg", max_bytes=6)
        assert self.read(folder, "a/1.jpg", max_bytes=7) == b"picture"

    def test_a_missing_file_is_unavailable(self, folder: Path) -> None:
        with pytest.raises(BadRecord, match="image_unavailable: .*No such file"):
            self.read(folder, "none.jpg")

    def test_a_folder_and_a_pipe_are_refused_at_once(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        for name in ("a", "pipe"):
            with pytest.raises(BadRecord, match=r"uri_refused: .*no regular file"):
                self.read(folder, name)


class Pictures(BaseHTTPRequestHandler):
    """Serves ``/cams/...`` and some surprises."""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        redirects = {
            "/cams/moved": "/cams/1.jpg",
            "/cams/away": "/private/1.jpg",
            "/cams/elsewhere": f"https://127.0.0.1:{port}/cams/1.jpg",
            "/cams/plain": f"http://localhost:{port}/cams/1.jpg",
            "/cams/file": "file:///etc/passwd",
            "/cams/loop": "/cams/loop",
        }
        if target := redirects.get(self.path):
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        if self.path in ("/cams/1.jpg", "/cams/signed?signature=x", "/private/1.jpg"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"picture")
        elif self.path == "/cams/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x" * 100)
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real HTTPS server whose certificate Python trusts."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that hang up are part of the tests."""

    http = Quiet(("127.0.0.1", 0), Pictures)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        patch.setenv("no_proxy", "localhost")
        yield f"https://localhost:{http.server_address[1]}"
    http.shutdown()
    thread.join()
    http.server_close()


class TestHttps:
    def read(self, server: str, path: str, max_bytes: int = 100, timeout_s: float = 10.0) -> bytes:
        return fetch_image(server + path, (server + "/cams/",), max_bytes, timeout_s)

    @pytest.mark.parametrize("path", ["/cams/1.jpg", "/cams/moved", "/cams/signed?signature=x"])
    def test_an_image_is_read_also_behind_a_redirect_that_stays_within(self, server: str, path: str) -> None:
        assert self.read(server, path) == b"picture"

    @pytest.mark.parametrize("path", ["/cams/away", "/cams/elsewhere", "/cams/plain"])
    def test_a_redirect_that_leads_out_is_refused(self, server: str, path: str) -> None:
        with pytest.raises(BadRecord, match="uri_refused"):
            self.read(server, path)

    def test_a_redirect_to_a_file_is_not_followed(self, server: str) -> None:
        with pytest.raises(BadRecord, match="image_unavailable: .*HTTP status 302"):
            self.read(server, "/cams/file")

    def test_a_redirect_in_a_circle_ends(self, server: str) -> None:
        with pytest.raises(BadRecord, match="image_unavailable"):
            self.read(server, "/cams/loop")

    def test_what_the_server_does_not_have_is_unavailable(self, server: str) -> None:
        with pytest.raises(BadRecord, match="image_unavailable: .*HTTP status 404"):
            self.read(server, "/cams/2.jpg")

    def test_a_long_answer_is_too_large(self, server: str) -> None:
        with pytest.raises(BadRecord, match="image_too_large"):
            self.read(server, "/cams/1.jpg", max_bytes=6)

    def test_a_server_that_drips_does_not_hold_the_thread(self, server: str) -> None:
        started = time.monotonic()
        with pytest.raises(BadRecord, match="image_unavailable: .*too long"):
            self.read(server, "/cams/slow", max_bytes=10**6, timeout_s=0.5)
        assert time.monotonic() - started < 3

    def test_an_unknown_certificate_is_not_trusted(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(BadRecord, match="image_unavailable"):
            self.read(server, "/cams/1.jpg")

    def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        with pytest.raises(BadRecord, match="image_unavailable"):
            fetch_image("https://localhost:1/1.jpg", ("https://localhost:1/",), 100, 2.0)


class Bucket:
    """S3's client in memory: ``get_object`` as boto3 has it."""

    def __init__(self, objects: dict[tuple[str, str], bytes]) -> None:
        self._objects = objects

    def get_object(self, *, Bucket: str, Key: str) -> Any:
        return {"Body": io.BytesIO(self._objects[Bucket, Key])}


class TestS3:
    def test_without_a_client_the_message_says_so(self) -> None:
        with pytest.raises(BadRecord, match="uri_refused: .*no S3 client is configured"):
            fetch_image("s3://bucket/live/1.jpg", PREFIXES, 100)

    def test_with_a_client_the_object_is_read_within_the_limit(self) -> None:
        bucket = Bucket({("bucket", "live/1 a.jpg"): b"picture"})
        assert fetch_image("s3://bucket/live/1%20a.jpg", PREFIXES, 7, s3=bucket) == b"picture"
        with pytest.raises(BadRecord, match="image_too_large"):
            fetch_image("s3://bucket/live/1%20a.jpg", PREFIXES, 6, s3=bucket)
        with pytest.raises(BadRecord, match="image_unavailable: .*KeyError"):
            fetch_image("s3://bucket/live/2.jpg", PREFIXES, 6, s3=bucket)
