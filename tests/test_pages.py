"""The pages over a filled store: what they show, to whom, and what no name in a record can make them do."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from PIL import Image
from starlette.testclient import TestClient

from dashboards.addresses import model_path, picture_path, sample_path
from monitor.kept_masks import kept
from tests.page_store import EVENT_US, HOSTILE, MODEL, PEOPLE, VERSION, Site, site, token_of, tokens_file

MOST_QUERIES = 20


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Without sign-in, on loopback."""
    with site(tmp_path_factory.mktemp("pages")) as filled:
        yield filled


@pytest.fixture(scope="module")
def closed_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Where everybody has to sign in."""
    folder = tmp_path_factory.mktemp("closed")
    web = {
        "tokens_file": str(tokens_file(folder)),
        "proxy_user_header": "X-Forwarded-User",
        "proxy_roles_header": "X-Forwarded-Groups",
        "trusted_proxies": ["10.0.0.0/8"],
        "failed_sign_ins_per_minute": 1000,
    }
    with site(folder, web) as filled:
        yield filled


@pytest.fixture
def client(open_site: Site) -> TestClient:
    return open_site.client()


def audited(filled: Site, what: str) -> list[Any]:
    return [line for line in filled.store.read_audit() if line.what == what]


def form_token(text: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', text)
    assert found is not None
    return found[1]


class _Links(HTMLParser):
    """Where a page leads and what it loads; fails on what must never be there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "object", "embed", "base"), tag
        for name, value in attributes:
            assert not name.startswith("on") and name != "style", (tag, name)
            if name in ("href", "src", "action", "formaction"):
                self.found.append(value or "")


class TestEveryPage:
    def test_it_answers_with_no_script_no_inline_style_and_links_that_stay_here(self, open_site: Site) -> None:
        client = open_site.client()
        for path in open_site.all_paths:
            answer = client.get(path)
            assert answer.status_code == 200, path
            for link in _Links(answer.text).found:
                assert link.startswith(("/", "#", "?", "data:,")) and not link.startswith("//"), (path, link)

    def test_its_links_to_pages_lead_somewhere(self, open_site: Site) -> None:
        client = open_site.client()
        seen = set()
        for path in open_site.all_paths:
            for link in _Links(client.get(path).text).found:
                if link.startswith(("/models", "/samples", "/actions")):
                    seen.add(link.partition("#")[0])
        assert len(seen) > 50
        assert [link for link in sorted(seen) if client.get(link).status_code != 200] == []

    def test_it_needs_few_queries(self, open_site: Site) -> None:
        client, counted = open_site.client(), []
        engine = open_site.store._database.engine

        def count(_c: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            counted.append(statement)

        sqlalchemy.event.listen(engine, "before_cursor_execute", count)
        try:
            for path in open_site.all_paths:
                counted.clear()
                client.get(path)
                reads = [one for one in counted if not one.startswith(("BEGIN", "PRAGMA"))]
                assert len(reads) <= MOST_QUERIES, (path, len(reads))
        finally:
            sqlalchemy.event.remove(engine, "before_cursor_execute", count)

    def test_hostile_names_are_text(self, open_site: Site) -> None:
        client = open_site.client()
        pages = {path: client.get(path).text for path in open_site.all_paths}
        assert all("<script>alert" not in text and "<img src=x" not in text for text in pages.values())
        assert sum("&lt;script&gt;" in text for text in pages.values()) >= 4
        assert all("\u202e" not in text for text in pages.values())
        assert any("invoice\\u202efdp.exe" in text for text in pages.values())

    @pytest.mark.parametrize("kind", sorted(HOSTILE))
    def test_a_sample_of_any_name_has_its_own_page_and_picture(self, client: TestClient, kind: str) -> None:
        path = sample_path(MODEL, VERSION, HOSTILE[kind])
        answer = client.get(path)
        assert answer.status_code == 200
        assert "<h1>" in answer.text
        picture = client.get(picture_path(MODEL, VERSION, HOSTILE[kind], "input", 64))
        assert picture.headers["content-type"] == "image/png"

    @pytest.mark.parametrize(
        "path",
        [
            "/models/yard/9",
            "/models/~2E~2E/1",
            "/samples/yard/1/no-such",
            "/samples/yard/1/..~2F..~2Fetc~2Fpasswd2",
            "/actions/none",
            "/models/yard/1/windows/2020-01-01T00~3A00~3A00Z?length=3600",
            "/models/yard/1/windows/2020-01-01T00~3A00~3A00Z/map?length=3600",
        ],
    )
    def test_what_is_not_there_is_said_to_people(self, client: TestClient, path: str) -> None:
        answer = client.get(path)
        assert answer.status_code == 404
        assert "Not here" in answer.text

    @pytest.mark.parametrize("page", ["", "/map"])
    def test_a_window_longer_than_any_is_refused(self, client: TestClient, page: str) -> None:
        path = f"/models/yard/1/windows/2020-01-01T00~3A00~3A00Z{page}?length=100000000000000"
        assert client.get(path).status_code == 422


class TestModelPage:
    def test_it_says_how_things_are_and_leads_to_the_window(self, client: TestClient, open_site: Site) -> None:
        text = client.get(model_path(MODEL, VERSION)).text
        assert "IoU of all classes" in text
        assert "version 2: first record" in text
        assert open_site.window.replace("&", "&amp;") in text

    def test_an_actions_link_leads_to_its_window(self, client: TestClient, open_site: Site) -> None:
        moved = client.get("/", params={"model": MODEL, "version": VERSION, "window": "2026-09-21T20:00:00Z"})
        assert moved.status_code == 307
        assert moved.headers["location"] == "/models/yard/1/windows/2026-09-21T20~3A00~3A00Z"


class TestWindowPage:
    def test_the_worst_come_first_those_without_a_label_after_them(
        self, client: TestClient, open_site: Site
    ) -> None:
        text = client.get(f"{open_site.window}&order=worst").text
        shown = [float(one) for one in re.findall(r"<strong>IoU ([0-9.]+)</strong>", text)]
        assert len(shown) == 9
        assert shown == sorted(shown)

    def test_pages_hold_every_record_once(self, client: TestClient, open_site: Site) -> None:
        seen: list[str] = []
        for number in (1, 2, 3):
            text = client.get(f"{open_site.window}&order=worst&page={number}").text
            seen += re.findall(r'class="shots" href="([^"]+)"', text)
        assert len(seen) == len(set(seen)) == 17

    def test_a_cell_of_the_confusion_leads_to_its_images(self, client: TestClient, open_site: Site) -> None:
        text = client.get(open_site.window).text
        cells = dict.fromkeys(re.findall(r"cell=([0-9]+-[0-9]+)", text))
        assert cells
        for cell in cells:
            assert 'class="shots"' in client.get(f"{open_site.window}&cell={cell}").text, cell


class TestPictures:
    def get(self, client: TestClient, view: str, name: str = "frame-000002") -> Any:
        answer = client.get(picture_path(MODEL, VERSION, name, view, 64))
        assert answer.status_code == 200
        return Image.open(io.BytesIO(answer.content)).convert("RGB")

    def test_masks_stand_where_they_were_predicted(self, client: TestClient, open_site: Site) -> None:
        one = open_site.store.views.sample(MODEL, VERSION, "frame-000002")
        assert one is not None and one.masks is not None
        assert kept(one.masks).instances
        before, after = self.get(client, "input"), self.get(client, "prediction")
        changed = [
            (x, y)
            for x in range(before.width)
            for y in range(before.height)
            if before.getpixel((x, y)) != after.getpixel((x, y))
        ]
        left = 5 + (2 + len(HOSTILE)) % 8
        size = before.width, before.height
        assert size == (40, 40)
        assert {(min(x for x, _ in changed), min(y for _, y in changed))} == {(left, 5)}
        assert (max(x for x, _ in changed), max(y for _, y in changed)) == (left + 9, 14)

    def test_each_view_differs(self, client: TestClient) -> None:
        name = "frame-000001"
        seen = {view: self.get(client, view, name).tobytes() for view in ("input", "prediction", "label", "difference")}
        assert len(set(seen.values())) == 4

    def test_it_is_not_painted_again_for_who_has_it(self, client: TestClient) -> None:
        path = picture_path(MODEL, VERSION, "frame-000002", "prediction", 64)
        tag = client.get(path).headers["etag"]
        again = client.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
        other = client.get(picture_path(MODEL, VERSION, "frame-000002", "input", 64))
        assert other.headers["etag"] != tag

    def test_without_the_image_masks_are_drawn_alone_and_that_is_said(self, tmp_path: Path) -> None:
        with site(tmp_path) as filled:
            for file in (tmp_path / "images").rglob("*.jpg"):
                file.unlink()
            client = filled.client()
            assert "The image is not kept" in client.get(sample_path(MODEL, VERSION, "frame-000001")).text
            picture = self.get(client, "prediction")
            assert len(picture.getcolors()) >= 2
            assert (96, 96, 96) in [colour for _, colour in picture.getcolors()]


class TestRelabelQueue:
    def test_claiming_and_giving_back_by_form(self, tmp_path: Path) -> None:
        with site(tmp_path) as filled:
            client = filled.client()
            token = form_token(client.get("/relabel").text)
            claimed = client.post("/relabel/claim", data={"csrf": token, "n": "2", "who": "maria"})
            assert claimed.status_code == 303
            text = client.get("/relabel").text
            assert "claimed by" in text and "maria" in text
            leased = [one for one in filled.store.relabel.items() if one.state == "claimed"]
            name = leased[0].input_id
            back = client.post("/relabel/release", data={"csrf": token, "input": name, "who": "maria"})
            assert back.headers["location"] == "/relabel?said=Given+back"
            assert all(one.state == "open" for one in filled.store.relabel.items() if one.input_id == name)
            assert [line.what for line in filled.store.read_audit()][-2:] == ["relabel.claim", "relabel.release"]

    @pytest.mark.parametrize("token", ["", "0" * 64])
    def test_a_form_without_its_token_is_refused_and_that_is_written_down(self, open_site: Site, token: str) -> None:
        before = len(audited(open_site, "web.refused"))
        answer = open_site.client().post("/relabel/claim", data={"csrf": token, "n": "1", "who": "x"})
        assert answer.status_code == 403
        assert len(audited(open_site, "web.refused")) == before + 1
        assert all(one.state == "open" for one in open_site.store.relabel.items())


class TestSignIn:
    def test_a_browser_is_led_to_the_form_and_back(self, closed_site: Site) -> None:
        client = closed_site.client()
        led = client.get("/relabel?kind=drift", headers={"accept": "text/html"})
        assert (led.status_code, led.headers["location"]) == (303, "/sign-in?next=%2Frelabel%3Fkind%3Ddrift")
        form = client.get(led.headers["location"])
        assert 'value="/relabel?kind=drift"' in form.text
        assert client.get("/sign-in/style.css").status_code == 200
        done = client.post("/sign-in", data={"token": token_of("lara"), "next": "/relabel?kind=drift"})
        assert done.headers["location"] == "/relabel?kind=drift"
        cookie = done.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        page = client.get("/relabel")
        assert "lara" in page.text and "(labeller)" in page.text
        out = client.post("/sign-out", data={"csrf": form_token(page.text)})
        assert out.status_code == 303
        assert client.get("/relabel").status_code == 401

    def test_programs_are_told_401(self, closed_site: Site) -> None:
        answer = closed_site.client().get("/api/v1/status")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")

    def test_a_wrong_token_is_refused_and_written_down(self, closed_site: Site) -> None:
        before = len(audited(closed_site, "web.refused"))
        answer = closed_site.client().post("/sign-in", data={"token": "wrong"})
        assert answer.status_code == 401
        assert "not known" in answer.text
        assert "set-cookie" not in answer.headers
        assert len(audited(closed_site, "web.refused")) == before + 1

    @pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:1"])
    def test_it_never_leads_elsewhere(self, closed_site: Site, wanted: str) -> None:
        done = closed_site.client().post("/sign-in", data={"token": token_of("lara"), "next": wanted})
        assert done.headers["location"] == "/"

    @pytest.mark.parametrize("harm", ["name", "signature", "end", "garbage"])
    def test_a_cookie_that_was_changed_is_nobodys(self, closed_site: Site, harm: str) -> None:
        client = closed_site.client()
        done = client.post("/sign-in", data={"token": token_of("victor")})
        name, _, rest = done.headers["set-cookie"].partition("=")
        content, _, signature = rest.partition(";")[0].partition(".")
        changed = {
            "name": f"{content[:-4]}AAAA.{signature}",
            "signature": f"{content}.{'0' * 64}",
            "end": f"{content}A.{signature}",
            "garbage": "%00.é",
        }[harm]
        client.cookies.clear()
        answer = client.get("/", headers=[(b"cookie", f"{name}={changed}".encode())])
        assert answer.status_code == 401
        client.cookies.clear()
        assert client.get("/", headers={"cookie": f"{name}={content}.{signature}"}).status_code == 200

    def test_too_many_wrong_tokens_are_not_looked_at(self, tmp_path: Path) -> None:
        web = {"tokens_file": str(tokens_file(tmp_path)), "failed_sign_ins_per_minute": 3}
        with site(tmp_path, web) as filled:
            client = filled.client()
            answers = [client.post("/sign-in", data={"token": "wrong"}).status_code for _ in range(5)]
            assert answers == [401, 401, 401, 429, 429]
            assert client.post("/sign-in", data={"token": token_of("ada")}).status_code == 429
            wrong = {"authorization": "Bearer wrong"}
            assert client.get("/", headers=wrong).status_code == 429
            assert client.get("/", headers={"authorization": f"Bearer {token_of('ada')}"}).status_code == 200

    def test_a_token_that_is_taken_away_ends_its_sessions(self, tmp_path: Path) -> None:
        file = tokens_file(tmp_path)
        with site(tmp_path, {"tokens_file": str(file)}) as filled:
            client = filled.client()
            client.post("/sign-in", data={"token": token_of("victor")})
            assert client.get("/").status_code == 200
            file.write_text("\n".join(line for line in file.read_text().splitlines()).replace("victor:", "vera:"))
            assert client.get("/").status_code == 401


class TestRoles:
    @pytest.mark.parametrize("person", sorted(PEOPLE))
    def test_everybody_reads_and_admins_the_audit_log(self, closed_site: Site, person: str) -> None:
        client = closed_site.client(person)
        assert client.get("/").status_code == 200
        assert client.get("/audit").status_code == (200 if person == "ada" else 403)

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/relabel/claim", {"lara", "otto", "ada"}),
            ("/api/v1/relabel/claim", {"lara", "otto", "ada"}),
            ("/-/reload", {"otto", "ada"}),
            ("/webhooks/alertmanager", {"otto", "ada"}),
            ("/api/v1/something/new", {"otto", "ada"}),
        ],
    )
    def test_writes_want_their_role_and_refusals_are_written_down(
        self, closed_site: Site, path: str, allowed: set[str]
    ) -> None:
        for person in ["", *PEOPLE]:
            before = len(audited(closed_site, "web.refused"))
            answer = closed_site.client(person).post(path)
            assert (answer.status_code in (401, 403)) == (person not in allowed), person
            if person not in allowed:
                assert answer.status_code == (403 if person else 401)
                line = audited(closed_site, "web.refused")[-1]
                assert len(audited(closed_site, "web.refused")) == before + 1
                assert line.who == f"http:{person or 'nobody'}"
                assert line.subject == "/".join(path.split("/")[:4])

    def test_a_session_writes_to_the_api_with_the_forms_token_alone(self, closed_site: Site) -> None:
        client = closed_site.client()
        client.post("/sign-in", data={"token": token_of("otto")})
        assert client.post("/-/reload").status_code == 403
        token = form_token(client.get("/relabel").text)
        assert client.post("/-/reload", headers={"x-csrf-token": token}).status_code == 200

    def test_what_somebody_does_is_written_under_their_name(self, closed_site: Site) -> None:
        client = closed_site.client("lara")
        asked = {"as": "lara", "n": 1}
        assert client.post("/api/v1/relabel/claim", json=asked, headers={"x-segwatch-person": "x"}).status_code == 200
        assert audited(closed_site, "relabel.claim")[-1].who == "http:lara"
        client.post("/api/v1/relabel/release", json={"as": "lara", "inputs": [HOSTILE["path"]]})

    @pytest.mark.parametrize("path", ["claim", "renew", "release", "done"])
    def test_a_lease_belongs_to_whoever_is_known_and_operators_act_for_others(
        self, closed_site: Site, path: str
    ) -> None:
        before = closed_site.store.relabel.items()
        lines = len(closed_site.store.read_audit())
        body = {"as": "maria", "n": 1} if path == "claim" else {"as": "maria", "inputs": ["frame-000003"]}
        address = f"/api/v1/relabel/{path}"
        refused = closed_site.client("lara").post(address, json=body)
        assert refused.status_code == 403 and "lara may not act for maria" in refused.json()["error"]
        assert closed_site.store.relabel.items() == before
        assert [one.what for one in closed_site.store.read_audit()[lines:]] == ["web.refused"]
        allowed = closed_site.client("otto").post(address, json=body)
        assert allowed.status_code == (200 if path == "claim" else 409)
        if path == "claim":
            line = audited(closed_site, "relabel.claim")[-1]
            assert (line.who, line.detail["as"]) == ("http:otto", "maria")
            inputs = [one["input_id"] for one in allowed.json()["items"]]
            closed_site.client("otto").post("/api/v1/relabel/release", json={"as": "maria", "inputs": inputs})

    def test_too_many_writes_are_refused(self, tmp_path: Path) -> None:
        web = {"tokens_file": str(tokens_file(tmp_path)), "writes_per_minute": 2}
        with site(tmp_path, web) as filled:
            answers = [filled.client("otto").post("/-/reload").status_code for _ in range(3)]
            assert answers == [200, 200, 429]


BY_PROXY = {"x-forwarded-user": "maria", "x-forwarded-groups": "staff, labeller,Operator"}


class TestProxy:
    def test_a_trusted_one_is_believed_and_its_highest_role_counts(self, closed_site: Site) -> None:
        client = closed_site.client(client=("10.1.2.3", 5000))
        text = client.get("/relabel", headers=BY_PROXY).text
        assert "maria" in text and "(operator)" in text
        assert client.get("/audit", headers=BY_PROXY).status_code == 403
        nobody = {"x-forwarded-user": "maria", "x-forwarded-groups": "staff"}
        assert "(viewer)" in client.get("/relabel", headers=nobody).text

    def test_any_other_is_not(self, closed_site: Site) -> None:
        client = closed_site.client(client=("192.0.2.1", 5000))
        assert client.get("/", headers=BY_PROXY).status_code == 401

    def test_its_forms_need_their_token(self, closed_site: Site) -> None:
        client = closed_site.client(client=("10.1.2.3", 5000))
        assert client.post("/relabel/claim", headers=BY_PROXY, data={"n": "1"}).status_code == 403
        token = form_token(client.get("/relabel", headers=BY_PROXY).text)
        done = client.post("/relabel/claim", headers=BY_PROXY, data={"n": "1", "csrf": token})
        assert done.status_code == 303
        assert any(one.claimed_by == "maria" for one in closed_site.store.relabel.items())
        assert closed_site.store.read_audit()[-1].who == "http:maria"


def test_the_window_of_these_tests_is_a_full_hour() -> None:
    assert EVENT_US % 3_600_000_000 == 0
