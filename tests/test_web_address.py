"""Whose request it is: by the connection, or by what a trusted proxy says; limits and the audit log go by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from monitor.http_server import serve
from monitor.web_address import client_address
from tests.page_store import Site, site, tokens_file
from tests.test_pages import audited

PROXIES = ("10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("forwarded", "peer", "address"),
    [
        ("192.0.2.7", "10.0.0.1", "192.0.2.7"),
        ("192.0.2.7", "::ffff:10.0.0.1", "192.0.2.7"),
        ("2001:db8::7", "fd00::1", "2001:db8::7"),
        ("192.0.2.99, 192.0.2.7, 10.0.0.9", "10.0.0.1", "192.0.2.7"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.1", "10.0.0.8"),
        ("192.0.2.7, unknown", "10.0.0.1", "10.0.0.1"),
        ("192.0.2.7, not an address, 10.0.0.9", "10.0.0.1", "10.0.0.9"),
        ("", "10.0.0.1", "10.0.0.1"),
        ("192.0.2.7", "198.51.100.1", "198.51.100.1"),
        ("192.0.2.7", "", ""),
        (", ".join(["192.0.2.7", *["10.0.0.9"] * 1000]), "10.0.0.1", "10.0.0.9"),
    ],
)
def test_only_what_trusted_proxies_have_appended_is_known(forwarded: str, peer: str, address: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert client_address(headers, peer, PROXIES) == address


def test_of_two_headers_the_later_is_the_nearer() -> None:
    headers = [(b"x-forwarded-for", b"192.0.2.99"), (b"x-forwarded-for", b"192.0.2.7")]
    assert client_address(headers, "10.0.0.1", PROXIES) == "192.0.2.7"


class TestLimits:
    """Of whom they are behind a reverse proxy; ten wrong tokens a minute."""

    @pytest.fixture
    def limited(self, tmp_path: Path) -> Iterator[Site]:
        web = {"tokens_file": str(tokens_file(tmp_path)), "trusted_proxies": ["10.0.0.0/8"]}
        with site(tmp_path, web) as filled:
            yield filled

    def guess(self, filled: Site, peer: str, forwarded: str = "") -> int:
        headers = {"x-forwarded-for": forwarded} if forwarded else {}
        client = filled.client(client=(peer, 5000))
        return int(client.post("/sign-in", data={"token": "wrong"}, headers=headers).status_code)

    def test_each_has_their_own_behind_a_trusted_proxy(self, limited: Site) -> None:
        first = [self.guess(limited, "10.0.0.1", "192.0.2.7") for _ in range(11)]
        assert first == [401] * 10 + [429]
        assert self.guess(limited, "10.0.0.1", "192.0.2.8") == 401
        assert self.guess(limited, "10.0.0.1", "192.0.2.99, 192.0.2.7") == 429, "what they wrote themselves counts not"
        assert self.guess(limited, "10.0.0.1", "192.0.2.7, 10.0.0.9") == 429, "by way of two proxies"
        told = [line.detail["address"] for line in audited(limited, "web.refused")]
        assert set(told) == {"192.0.2.7", "192.0.2.8"}

    def test_any_other_is_not_believed(self, limited: Site) -> None:
        codes = [self.guess(limited, "198.51.100.1", f"192.0.2.{number}") for number in range(11)]
        assert codes == [401] * 10 + [429]

    def test_tokens_of_programs_count_alike(self, limited: Site) -> None:
        client = limited.client(client=("10.0.0.1", 5000))
        wrong = {"authorization": "Bearer wrong", "x-forwarded-for": "192.0.2.7"}
        codes = [client.get("/api/v1/status", headers=wrong).status_code for _ in range(11)]
        assert codes == [401] * 10 + [429]
        other = {**wrong, "x-forwarded-for": "192.0.2.8"}
        assert client.get("/api/v1/status", headers=other).status_code == 401


def test_the_server_itself_believes_nobody(tmp_path: Path) -> None:
    with site(tmp_path, {"tokens_file": str(tokens_file(tmp_path))}) as filled:
        assert _guesses(filled) == [401] * 10 + [429]


def test_a_proxy_on_the_same_machine_can_be_trusted(tmp_path: Path) -> None:
    web = {
        "tokens_file": str(tokens_file(tmp_path)),
        "trusted_proxies": ["127.0.0.1"],
        "proxy_user_header": "X-Forwarded-User",
    }
    with site(tmp_path, web) as filled:
        assert _guesses(filled) == [401] * 11
        server = serve(filled.app, "127.0.0.1", 0)
        headers = {"x-forwarded-for": "192.0.2.7", "x-forwarded-user": "maria"}
        try:
            answer = httpx.get(f"{server.address}/relabel", headers=headers, trust_env=False)
        finally:
            server.stop()
        assert answer.status_code == 200
        assert "maria" in answer.text


def _guesses(filled: Site) -> list[int]:
    """Eleven wrong tokens over a real connection, each said to come from elsewhere."""
    server = serve(filled.app, "127.0.0.1", 0)
    try:
        with httpx.Client(base_url=server.address, trust_env=False) as client:
            sent = [{"authorization": "Bearer wrong", "x-forwarded-for": f"192.0.2.{number}"} for number in range(11)]
            return [client.get("/api/v1/status", headers=headers).status_code for headers in sent]
    finally:
        server.stop()
