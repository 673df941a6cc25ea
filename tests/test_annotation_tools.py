"""From the queue to an annotation tool and back into the store: files, REST interfaces, webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient

from monitor.annotation_intake import CvatPulls
from monitor.annotation_tools import label_studio
from monitor.annotation_tools.http import ToolApi, ToolError
from monitor.cli import cli
from monitor.errors import InputError, SettingsError
from monitor.label_rows import raw_of
from monitor.live_settings import LiveSettings
from monitor.masks import encode_rle
from monitor.records import Label, Limits, decode
from monitor.settings import Settings
from monitor.status import status
from monitor.store.store import Store
from monitor.web import create_app
from monitor.web_labels import labels_router
from monitor.web_state import StoreState
from tests.embedded import HOUR_US, NOW_US, encode, feed, open_store, settings_of
from tests.made_labels import SIDE, after, label, seen, square

START_US = NOW_US - 24 * HOUR_US
SECRET, TOKEN = "s3cret", "t0ken"
COUNT = 6
RING = np.zeros((SIDE, SIDE), np.bool_)
RING[3:30, 4:20] = True
RING[5:28, 5:19] = False


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    quality = {"keep_masks_days": 36_500, "join_days": 36_500}
    return settings_of(tmp_path / "data", windows={"lengths_seconds": [3600]}, quality=quality)


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """Six records with a ring and a square each, all of them queued by hand."""
    Path(settings.data_dir).mkdir()
    with open_store(settings) as store:
        both = [("car", 0.9, encode_rle(RING)), ("bus", 0.5, square(20))]
        feed(store, settings, [encode(seen(i, START_US + i, *both)) for i in range(COUNT)])
        store.relabel.add_by_hand([f"input-{i:06d}" for i in range(COUNT)], "look", model="street")
    return settings


def segwatch(settings: Settings, *arguments: str) -> Result:
    config = Path(settings.data_dir) / "segwatch.yaml"
    config.write_bytes(msgspec.yaml.encode(msgspec.to_builtins(settings)))
    return CliRunner().invoke(cli, ["--config", str(config), *arguments])


def stored(settings: Settings) -> dict[str, Label]:
    with Store.open(settings, write=False) as store:
        found = {}
        for row in store.exports.labels():
            read = decode(raw_of(row), Limits())
            assert isinstance(read, Label)
            found[row.input_id] = read
        return found


def accept(path: Path, changed: str = "2026-11-23T13:00:00Z") -> None:
    """Every prediction of Label Studio's tasks becomes somebody's annotation."""
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks):
        [prediction] = task.pop("predictions")
        result = {"id": number, "completed_by": 3, "result": prediction["result"], "updated_at": changed}
        task["annotations"] = [result]
    path.write_text(json.dumps(tasks))


class TestFiles:
    @pytest.mark.parametrize(
        ("form", "name"), [("coco", "instances.json"), ("cvat", "annotations.xml"), ("labelstudio", "tasks.json")]
    )
    def test_the_queue_goes_out_and_comes_back_with_its_purpose(
        self, filled: Settings, tmp_path: Path, form: str, name: str
    ) -> None:
        out = tmp_path / "out"
        done = segwatch(filled, "relabel", "export", "--format", form, "--out", str(out), "--claim-as", "ann", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["samples"] == COUNT
        # Nobody else gets what is leased.
        again = segwatch(filled, "relabel", "export", "--format", form, "--out", str(tmp_path / "again"), "--json")
        assert json.loads(again.stdout)["samples"] == 0
        if form == "labelstudio":
            accept(out / name)
        back = segwatch(filled, "labels", "import", str(out / name), "--json")
        assert back.exit_code == 0, back.output
        assert json.loads(back.stdout)["outcomes"]["accepted"] == COUNT
        assert json.loads(back.stdout)["judged"] == COUNT
        for one in stored(filled).values():
            assert one.purpose == "relabel" and one.annotator == (
                "labelstudio:3" if form == "labelstudio" else "import"
            )
            masks = [(each.class_name, msgspec.to_builtins(each.mask)) for each in one.instances or ()]
            assert [(kind, dict(mask, size=list(mask["size"]))) for kind, mask in masks] == [
                ("car", encode_rle(RING)),
                ("bus", square(20)),
            ]
        # A label closes what asked for it.
        listed = segwatch(filled, "relabel", "list", "--json")
        assert json.loads(listed.stdout)["items"] == []

    def test_the_callers_word_counts_over_the_exports(self, filled: Settings, tmp_path: Path) -> None:
        out = tmp_path / "export.json"
        segwatch(filled, "relabel", "export", "--format", "coco", "--out", str(out))
        done = segwatch(filled, "labels", "import", str(out), "--purpose", "audit", "--annotator", "zoe")
        assert done.exit_code == 0, done.output
        assert {(one.purpose, one.annotator) for one in stored(filled).values()} == {("audit", "zoe")}

    @pytest.mark.parametrize("form", ["coco", "cvat", "labelstudio", "jsonl"])
    def test_labels_go_out_and_come_back(self, filled: Settings, tmp_path: Path, form: str) -> None:
        lines = tmp_path / "in.jsonl"
        more = {"selection_probability": 0.25, "purpose": "audit", "annotator": "zoe@example.org"}
        made = [label(i, after(START_US), ("car", encode_rle(RING)), **more) for i in range(COUNT)]
        lines.write_bytes(b"".join(encode(one) + b"\n" for one in made))
        assert segwatch(filled, "labels", "import", str(lines)).exit_code == 0
        before = stored(filled)
        out = tmp_path / "out"
        done = segwatch(filled, "labels", "export", "--format", form, "--out", str(out), "--json")
        assert json.loads(done.stdout)["samples"] == COUNT, done.output
        [file] = [
            one
            for one in out.iterdir()
            if one.name in {"instances.json", "annotations.xml", "tasks.json", "labels.jsonl"}
        ]
        with_version = [] if form in ("jsonl", "labelstudio") else ["--annotation-version", "2"]
        back = segwatch(
            filled, "labels", "import", str(file), "--annotator", "zoe@example.org", *with_version, "--json"
        )
        assert back.exit_code == 0, back.output
        outcome = "duplicate" if form == "jsonl" else "replaced"
        assert json.loads(back.stdout)["outcomes"][outcome] == COUNT
        for name, one in stored(filled).items():
            assert one.instances == before[name].instances
            assert (one.purpose, one.selection_probability) == ("audit", 0.25)

    def test_a_foreign_input_is_refused_and_nothing_is_stored(self, filled: Settings, tmp_path: Path) -> None:
        out = tmp_path / "out"
        segwatch(filled, "relabel", "export", "--format", "cvat", "--out", str(out))
        text = (out / "annotations.xml").read_text()
        (out / "annotations.xml").write_text(text.replace("input-000004", "elsewhere"))
        done = segwatch(filled, "labels", "import", str(out / "annotations.xml"))
        assert isinstance(done.exception, InputError)
        assert "input_id 'elsewhere' is no input that segwatch has seen" in str(done.exception)
        assert stored(filled) == {}

    @pytest.mark.parametrize(
        ("old", "new", "why"),
        [
            ('<mask label="car"', '<mask label="tram"', "shape 0 (mask of 'tram'): which the classes do not have"),
            ('width="40" height="40"', 'width="4" height="4"', "leaves the image of 4 x 4"),
            ('<mask label="car"', '<ellipse label="car"', "shape 0 (ellipse of 'car'): is no mask"),
            ('rle="', 'rle="1, ', "the counts add up to"),
            ('rle="', 'rle="-1, ', "expected integers from 0 on"),
            ("<annotations>", '<!DOCTYPE a [<!ENTITY b "c">]><annotations>', "a document type is not read"),
            ("<annotations>", "<labels>", "expected annotations"),
            ("</annotations>", "", "not XML"),
            (">relabel<", ">sold<", "Invalid enum value 'sold'"),
        ],
    )
    def test_a_bad_entry_of_cvats_is_named(
        self, filled: Settings, tmp_path: Path, old: str, new: str, why: str
    ) -> None:
        out = tmp_path / "out"
        segwatch(filled, "relabel", "export", "--format", "cvat", "--out", str(out))
        text = (out / "annotations.xml").read_text()
        assert old in text
        if old.startswith("<mask") and "ellipse" in new:
            text = text.replace("</mask>", "</ellipse>", 1)
        (out / "annotations.xml").write_text(text.replace(old, new, 1))
        done = segwatch(filled, "labels", "import", str(out / "annotations.xml"), "--format", "cvat")
        assert isinstance(done.exception, InputError) and why in str(done.exception), done.exception
        assert stored(filled) == {}

    def test_cvats_archive_is_read_and_a_bomb_is_not(self, filled: Settings, tmp_path: Path) -> None:
        out = tmp_path / "out"
        segwatch(filled, "relabel", "export", "--format", "cvat", "--out", str(out))
        archive = tmp_path / "export.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.write(out / "annotations.xml", "annotations.xml")
        assert segwatch(filled, "labels", "import", str(archive)).exit_code == 0
        assert len(stored(filled)) == COUNT
        bomb = tmp_path / "bomb.zip"
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("annotations.xml", "<annotations>" + " " * 64 * 1024**2 + "</annotations>")
        assert bomb.stat().st_size < 100_000
        done = segwatch(filled, "labels", "import", str(bomb))
        assert isinstance(done.exception, InputError) and "more than 200 times" in str(done.exception)

    def test_what_could_not_be_written_is_given_back(self, filled: Settings, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("")
        arguments = ("relabel", "export", "--format", "coco", "--claim-as", "ann", "--out")
        done = segwatch(filled, *arguments, str(blocked / "a.json"))
        assert isinstance(done.exception, InputError) and "--out" in str(done.exception)
        listed = json.loads(segwatch(filled, "relabel", "list", "--state", "open", "--json").stdout)["items"]
        assert len(listed) == COUNT

    def test_many_full_masks_of_a_long_image_are_refused_before_they_are_read(
        self, filled: Settings, tmp_path: Path
    ) -> None:
        mask = '<mask label="car" rle="0, 12000000" left="0" top="0" width="1000000" height="12" z_order="0"></mask>'
        image = f'<image id="0" name="input-000001.png" width="1000000" height="12">{mask * 100}</image>'
        path = tmp_path / "a.xml"
        path.write_text(f"<annotations>{image}</annotations>")
        done = segwatch(filled, "labels", "import", str(path))
        assert "100 masks of 12 x 1000000 pixels are more than are read of one image" in str(done.exception)

    def test_named_samples_need_no_queue(self, filled: Settings, tmp_path: Path) -> None:
        out = tmp_path / "a.json"
        done = segwatch(
            filled, "relabel", "export", "--format", "coco", "--out", str(out), "--input-id", "input-000002"
        )
        assert done.exit_code == 0, done.output
        [image] = json.loads(out.read_text())["images"]
        assert (image["input_id"], image["file_name"]) == ("input-000002", "input-000002.png")
        done = segwatch(filled, "relabel", "export", "--format", "coco", "--out", str(out), "--input-id", "nobody")
        assert "no masks of street are kept" in str(done.exception)


def annotation_event(number: int, changed: str, **more: Any) -> dict[str, Any]:
    """What Label Studio sends."""
    from detectors.brush_rle import brush_bytes
    from detectors.quality.mask_runs import read_runs

    runs = read_runs([square(10)])
    rle = brush_bytes(runs.starts, runs.ends, SIDE, SIDE).tolist()
    result = {
        "id": "x1",
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": SIDE,
        "original_height": SIDE,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": rle, "brushlabels": ["car"]},
    }
    annotation = {"id": 5, "completed_by": 9, "result": [result], "updated_at": changed, "was_cancelled": False}
    task = {"id": 77, "data": {"image": "x.png", "input_id": f"input-{number:06d}", "segwatch": {"purpose": "relabel"}}}
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 1}, "task": task, "annotation": annotation}
    return {**event, **more}


class Web:
    """The application over a store, with both webhooks."""

    def __init__(self, settings: Settings) -> None:
        annotation = msgspec.structs.replace(
            settings.annotation, labelstudio_secret=SECRET, cvat_secret=SECRET, tool="cvat", max_webhook_bytes=50_000
        )
        web = msgspec.structs.replace(settings.web, token=TOKEN)
        self.settings = msgspec.structs.replace(settings, annotation=annotation, web=web)
        self.now_us = NOW_US
        self.store = Store.open(self.settings, write=True, clock=lambda: self.now_us)
        live = LiveSettings(self.settings, lambda: self.settings)
        self.document: dict[str, Any] = {}
        self.fails: BaseException | None = None
        self.fetched = 0
        self.pulls = self.other_pulls()
        app = create_app(StoreState(self.store, live), "127.0.0.1", [labels_router(self.store, live, self.pulls)])
        self.client = TestClient(app, base_url="http://127.0.0.1")

    def other_pulls(self) -> CvatPulls:
        """As another process would have them."""
        live = LiveSettings(self.settings, lambda: self.settings)
        return CvatPulls(self.store, live, client=lambda _: self, chance=lambda: 1.0)  # type: ignore[arg-type, return-value]

    def job_document(self, _job_id: int) -> dict[str, Any]:
        self.fetched += 1
        if self.fails is not None:
            raise self.fails
        return self.document

    def label_studio(self, body: Any, secret: str = SECRET) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post("/webhooks/labelstudio", content=data, headers={"X-Segwatch-Secret": secret})

    def cvat(self, body: Any, *, prefix: str = "sha256=", secret: str = SECRET) -> Any:
        data = json.dumps(body).encode()
        signature = prefix + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()
        return self.client.post("/webhooks/cvat", content=data, headers={"X-Signature-256": signature})


@pytest.fixture
def web(filled: Settings) -> Iterator[Web]:
    opened = Web(filled)
    yield opened
    opened.store.close()


def labels_in(web: Web) -> list[Any]:
    return list(web.store.exports.labels())


class TestLabelStudiosWebhook:
    def test_replays_and_reorderings_are_harmless(self, web: Web) -> None:
        newer = annotation_event(1, "2026-11-23T13:00:00.000002Z", action="ANNOTATION_UPDATED")
        older = annotation_event(1, "2026-11-23T13:00:00.000001Z")
        assert web.label_studio(newer).json() == {"outcomes": {"accepted": 1}}
        assert web.label_studio(older).json() == {"outcomes": {"superseded": 1}}
        assert web.label_studio(newer).json() == {"outcomes": {"duplicate": 1}}
        [row] = labels_in(web)
        assert (row.annotator, row.purpose, row.annotation_version % 10) == ("labelstudio:9", "relabel", 2)

    def test_without_the_secret_nothing_happens(self, web: Web) -> None:
        event = annotation_event(1, "2026-11-23T13:00:00Z")
        assert web.label_studio(event, "wrong").status_code == 401
        assert web.client.post("/webhooks/labelstudio", json=event).status_code == 401
        # The web token opens everything else, not this.
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert web.client.post("/webhooks/labelstudio", json=event, headers=headers).status_code == 401
        assert labels_in(web) == []

    @pytest.mark.parametrize(
        ("damage", "why"),
        [
            (lambda e: e["task"]["data"].update(input_id="elsewhere"), "is no input that segwatch has seen"),
            (lambda e: e["annotation"]["result"][0]["value"].update(brushlabels=["tram"]), "the classes do not have"),
            (lambda e: e["annotation"]["result"][0].update(original_width=SIDE + 1), "of another picture"),
            (lambda e: e["annotation"]["result"][0].update(type="rectanglelabels"), "is no mask"),
            (lambda e: e["annotation"]["result"][0].update(image_rotation=90), "turned by 90 degrees"),
            (lambda e: e["annotation"].pop("updated_at"), "updated_at is missing"),
            (lambda e: e["annotation"].update(result=5), "result"),
            (lambda e: e["annotation"]["result"][0]["value"].update(rle=[0, 0, 25, 0, 57, 27, 252]), "ends too early"),
            (lambda e: e["annotation"]["result"][0]["value"].update(rle=[300]), "<= 255"),
            (lambda e: e["task"]["data"]["segwatch"].update(purpose="sold"), "segwatch"),
            (lambda e: e.pop("annotation"), "without task or annotation"),
        ],
    )
    def test_a_bad_annotation_is_refused_with_the_reason(self, web: Web, damage: Any, why: str) -> None:
        event = annotation_event(1, "2026-11-23T13:00:00Z")
        damage(event)
        answer = web.label_studio(event)
        assert answer.status_code == 400 and why in answer.json()["error"], answer.text
        assert labels_in(web) == []

    def test_other_events_too_large_bodies_and_no_json(self, web: Web) -> None:
        assert web.label_studio({"action": "TASKS_CREATED"}).json() == {"ignored": True}
        assert web.label_studio(b"x" * 50_001).status_code == 413
        assert web.label_studio(b"{").status_code == 400
        cancelled = annotation_event(1, "2026-11-23T13:00:00Z")
        cancelled["annotation"]["was_cancelled"] = True
        assert web.label_studio(cancelled).json() == {"outcomes": {}}

    def test_no_secret_no_path(self, filled: Settings) -> None:
        with Store.open(filled, write=True) as store:
            live = LiveSettings(filled, lambda: filled)
            app = create_app(StoreState(store, live), "127.0.0.1", [labels_router(store, live, CvatPulls(store, live))])
            client = TestClient(app, base_url="http://127.0.0.1")
            assert client.post("/webhooks/labelstudio", content=b"{}").status_code == 404
            assert client.post("/webhooks/cvat", content=b"{}").status_code == 404


def job_document(changed: str = "2026-11-23T13:00:00.5Z") -> dict[str, Any]:
    """What CVAT answers of a job of three frames: a mask on the first, a polygon on the second, the third deleted."""
    frames = [{"name": f"cam/input-{i:06d}.png", "width": SIDE, "height": SIDE, "related_files": 0} for i in range(3)]
    mask = [0, 100, 10, 5, 19, 14]  # square(10): a full box
    shapes = [
        {"type": "mask", "frame": 4, "label_id": 11, "points": [float(one) for one in mask], "z_order": 0},
        {"type": "polygon", "frame": 5, "label_id": 12, "points": [1.5, 1.0, 9.0, 1.0, 9.0, 9.0], "z_order": 0},
    ]
    specs = [{"id": 900 + k, "name": name} for k, name in enumerate(("purpose", "selection_probability"))]
    tag = {
        "frame": 4,
        "label_id": 13,
        "attributes": [{"spec_id": 900, "value": "relabel"}, {"spec_id": 901, "value": "0.5"}],
    }
    labels = [{"id": 11, "name": "car"}, {"id": 12, "name": "bus"}, {"id": 13, "name": "segwatch", "attributes": specs}]
    job = {"id": 6, "task_id": 2, "start_frame": 4, "stop_frame": 6, "state": "completed", "updated_date": changed}
    return {
        "labels": labels,
        "meta": {"size": 3, "frames": frames, "deleted_frames": [6], "included_frames": None},
        "annotations": {"version": 3, "tags": [tag], "shapes": shapes, "tracks": []},
        "job": {**job, "assignee": {"id": 4, "username": "zoe"}},
    }


class TestCvatsWebhook:
    EVENT: ClassVar[dict[str, Any]] = {"event": "update:job", "job": {"id": 6, "state": "completed"}, "webhook_id": 1}

    @pytest.mark.parametrize("prefix", ["sha256=", ""])
    def test_a_completed_job_is_fetched_and_stored_once(self, web: Web, prefix: str) -> None:
        web.document = job_document()
        for _ in range(3):
            assert web.cvat(self.EVENT, prefix=prefix).status_code == 202
        stop = threading.Event()
        thread = threading.Thread(target=web.pulls.run, args=(stop,))
        thread.start()
        until = time.monotonic() + 20
        while len(labels_in(web)) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        web.now_us += 1
        web.cvat(self.EVENT)  # again, when it is stored
        while (web.fetched < 2 or web.store.annotation_jobs.rows()) and time.monotonic() < until:
            time.sleep(0.02)
        stop.set()
        thread.join(10)
        assert web.fetched == 2  # three reports at once are one job
        first, second = labels_in(web)
        assert (first.input_id, first.annotator, first.purpose, first.selection_probability) == (
            "input-000000",
            "cvat:zoe",
            "relabel",
            0.5,
        )
        assert second.input_id == "input-000001"
        read = decode(raw_of(first), Limits())
        assert isinstance(read, Label) and read.instances is not None
        assert msgspec.to_builtins(read.instances[0].mask)["counts"] == square(10)["counts"]

    def test_a_job_that_a_process_died_over_is_fetched_by_the_next(self, web: Web) -> None:
        web.document, web.fails = job_document(), SystemExit()
        assert web.cvat(self.EVENT).status_code == 202
        with pytest.raises(SystemExit):
            web.pulls.once()
        other = web.other_pulls()
        assert not other.once()  # its lease holds
        assert status(web.store, web.now_us)["annotation_jobs"]["waiting"] == 1
        web.now_us, web.fails = web.now_us + HOUR_US, None
        assert status(web.store, web.now_us)["annotation_jobs"]["waiting_seconds"] == 3600
        assert other.once() and not other.once()
        assert len(labels_in(web)) == 2 and web.store.annotation_jobs.rows() == []
        assert status(web.store, web.now_us)["annotation_jobs"]["waiting_seconds"] is None

    def test_while_cvat_is_away_a_job_waits_ever_longer_and_is_never_given_up(self, web: Web) -> None:
        web.document, web.fails = job_document(), ToolError("no answer")
        web.cvat(self.EVENT)
        for attempt in range(1, 21):
            assert web.pulls.once()
            [row] = web.store.annotation_jobs.rows()
            assert (row.attempts, row.error) == (attempt, "no answer")
            assert row.next_us - web.now_us == min(5 * 2 ** (attempt - 1), 3600) * 1_000_000
            assert not web.pulls.once()
            web.now_us = row.next_us
        web.fails = None
        assert web.pulls.once() and len(labels_in(web)) == 2

    def test_a_change_while_a_job_is_fetched_has_it_fetched_again(self, web: Web) -> None:
        web.document = job_document()
        fetch = web.job_document

        def changed_meanwhile(job_id: int) -> dict[str, Any]:
            web.now_us += 1
            web.cvat(self.EVENT)
            return fetch(job_id)

        web.job_document = changed_meanwhile  # type: ignore[method-assign, assignment]
        web.cvat(self.EVENT)
        assert web.pulls.once()
        assert [row.attempts for row in web.store.annotation_jobs.rows()] == [0]
        web.job_document = fetch  # type: ignore[method-assign]
        assert web.pulls.once() and web.store.annotation_jobs.rows() == []

    def test_a_job_that_cannot_be_stored_is_said_and_tried_again_once_it_changes(self, web: Web) -> None:
        web.document = job_document()
        web.document["meta"]["frames"][0]["name"] = "elsewhere.png"
        web.cvat(self.EVENT)
        assert web.pulls.once() and not web.pulls.once()
        assert labels_in(web) == []
        [row] = web.store.annotation_jobs.rows()
        assert row.state == "refused" and "elsewhere" not in row.error
        assert status(web.store, web.now_us)["annotation_jobs"] == {"waiting": 0, "waiting_seconds": None, "refused": 1}
        web.document = job_document()
        web.cvat(self.EVENT)
        assert web.pulls.once() and len(labels_in(web)) == 2

    def test_a_wrong_signature_and_other_states_do_nothing(self, web: Web) -> None:
        assert web.cvat(self.EVENT, secret="other").status_code == 401
        assert web.client.post("/webhooks/cvat", json=self.EVENT).status_code == 401
        assert web.cvat({"event": "ping"}).json() == {"ignored": "ping"}
        assert web.cvat({"event": "update:job", "job": {"id": 6, "state": "in progress"}}).status_code == 200
        assert web.cvat([]).status_code == 400
        assert web.fetched == 0 and labels_in(web) == []


class Tool(BaseHTTPRequestHandler):
    """Both tools' interfaces as their schemas describe them, as far as they are used; refuses anything else."""

    tasks: list[dict[str, Any]]
    patches: list[dict[str, Any]]
    seen: list[str]
    most_imports: ClassVar[int] = 1000
    """After so many imports, one is taken and then answered by a proxy that has lost patience."""
    knows_queries: ClassVar[bool] = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _asked(self) -> tuple[str, dict[str, str], Any]:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.seen.append(f"{self.command} {self.path}")
        return parts.path, dict(parse_qsl(parts.query)), json.loads(self.rfile.read(length)) if length else None

    def do_GET(self) -> None:
        path, query, _ = self._asked()
        document = job_document()
        studio = "/projects/" in path or path == "/api/tasks"
        wanted = ("Token old", "Bearer access") if studio else ("Bearer pat",)
        if self.headers["Authorization"] not in wanted:
            self._answer(401, {"detail": "no"})
        elif path == "/api/labels":
            page = int(query["page"])
            following = "http://elsewhere/next" if page == 1 else None
            self._answer(200, {"count": 3, "next": following, "results": document["labels"][2 * page - 2 : 2 * page]})
        elif path == "/api/jobs":
            self._answer(200, {"next": None, "results": [document["job"], {"id": 7, "state": "new"}]})
        elif path == "/api/jobs/6":
            self._answer(200, document["job"])
        elif path in ("/api/jobs/6/data/meta", "/api/tasks/2/data/meta"):
            self._answer(200, document["meta"])
        elif path == "/api/jobs/6/annotations/":
            self._answer(200, document["annotations"])
        elif path == "/api/tasks/2/annotations/":
            drawn = [shape for body in self.patches for shape in body["shapes"]]
            self._answer(200, {"version": 0, "tags": [], "shapes": drawn, "tracks": []})
        elif path == "/api/tasks" and query["project"] == "2":
            asked = {one["value"] for one in json.loads(query["query"])["filters"]["items"]}
            found = [one for one in self.tasks if one["data"]["input_id"] in asked or not self.knows_queries]
            start = (int(query["page"]) - 1) * 2  # a server may give fewer than it is asked for
            self._answer(200, {"total": len(found), "tasks": found[start : start + 2]})
        elif path == "/api/projects/2/export" and query == {"exportType": "JSON"}:
            done = [{"id": 1, "completed_by": 3, "updated_at": "2026-11-23T13:00:00Z"}]
            tasks = [
                {
                    "id": k,
                    "data": task["data"],
                    "annotations": [{**done[0], "result": task["predictions"][0]["result"]}],
                }
                for k, task in enumerate(self.tasks)
            ]
            self._answer(200, tasks)
        else:
            self._answer(404, {"detail": "Not found."})

    def do_POST(self) -> None:
        path, _, body = self._asked()
        if path == "/api/token/refresh/" and body == {"refresh": "a.b.c"}:
            self._answer(200, {"access": "access"})
            return
        if path != "/api/projects/2/import" or not isinstance(body, list):
            self._answer(404, {})
            return
        self.tasks.extend(body)
        if sum(one.startswith("POST /api/projects") for one in self.seen) > self.most_imports:
            self._answer(503, {"detail": "upstream"})
            return
        self._answer(201, {"task_count": len(body)})

    def do_PATCH(self) -> None:
        path, query, body = self._asked()
        assert path == "/api/tasks/2/annotations/" and query == {"action": "create"}
        assert set(body) == {"version", "tags", "shapes", "tracks"}
        for shape in body["shapes"]:
            assert {"type", "label_id", "frame", "points", "source"} <= set(shape)
        self.patches.append(body)
        self._answer(200, body)


@pytest.fixture
def tool() -> Iterator[tuple[str, type[Tool]]]:
    handler = type("Handler", (Tool,), {"tasks": [], "patches": [], "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join(5)


def with_tool(settings: Settings, name: str, url: str, token: str) -> Settings:
    annotation = msgspec.structs.replace(settings.annotation, tool=name, url=url, token=token, project=2)
    return msgspec.structs.replace(settings, annotation=annotation)


def nonzero(pulled: Result) -> dict[str, int]:
    return {name: count for name, count in json.loads(pulled.stdout)["outcomes"].items() if count}


class TestClients:
    def test_label_studio_there_and_back(self, filled: Settings, tool: tuple[str, type[Tool]]) -> None:
        settings = with_tool(filled, "labelstudio", tool[0], "old")
        done = segwatch(settings, "relabel", "push", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["samples"] == COUNT == len(tool[1].tasks)
        assert segwatch(settings, "relabel", "push", "--json").exit_code == 0
        assert len(tool[1].tasks) == COUNT  # they are leased
        for outcome in ("accepted", "duplicate"):
            back = segwatch(settings, "labels", "pull", "--json")
            assert nonzero(back) == {outcome: COUNT}, back.output
        masks = stored(settings)["input-000003"].instances or []
        assert msgspec.to_builtins(masks[0].mask)["counts"] == encode_rle(RING)["counts"]

    def test_a_label_that_does_not_fit_is_named_at_each_pull_and_keeps_none_of_the_others_out(
        self, filled: Settings, tool: tuple[str, type[Tool]]
    ) -> None:
        settings = with_tool(filled, "labelstudio", tool[0], "old")
        with Store.open(settings, write=True) as store:
            small = ("car", 0.9, encode_rle(np.ones((10, 12), np.bool_)))
            feed(store, settings, [encode(seen(COUNT, START_US, small))], topic_id="more")
            store.relabel.add_by_hand([f"input-{COUNT:06d}"], "look", model="street")
        assert segwatch(settings, "relabel", "push").exit_code == 0
        tasks = {one["data"]["input_id"]: one for one in tool[1].tasks}
        tasks["input-000003"]["predictions"] = tasks[f"input-{COUNT:06d}"]["predictions"]
        for outcome in ("accepted", "duplicate"):
            back = segwatch(settings, "labels", "pull", "--json")
            assert back.exit_code == 0, back.output
            shown = json.loads(back.stdout)
            assert (shown["outcomes"][outcome], shown["left_out"], shown["refused"]) == (COUNT, 1, 0)
            told = [line for line in back.stderr.splitlines() if "label_mismatch" in line]
            assert [line.split(": ")[0] for line in told] == ["project-2.json"]
            assert "input_id 'input-000003'" in told[0] and "10 x 12" in told[0]
        assert "; 1 left out, since they do not fit" in segwatch(settings, "labels", "pull").stdout
        assert stored(settings).keys() == tasks.keys() - {"input-000003"}

    def test_a_label_that_is_refused_when_its_prediction_comes_is_counted_and_named(
        self, filled: Settings, tool: tuple[str, type[Tool]]
    ) -> None:
        settings = with_tool(filled, "labelstudio", tool[0], "old")
        assert segwatch(settings, "relabel", "push").exit_code == 0
        with Store.open(settings, write=True) as store:
            small = encode_rle(np.ones((10, 12), np.bool_))
            early = label(COUNT, after(START_US), ("car", small))
            feed(store, settings, [encode(early)], topic_id="early")
            feed(store, settings, [encode(seen(COUNT, START_US, ("car", 0.9, square(10))))], topic_id="late")
        back = segwatch(settings, "labels", "pull", "--json")
        shown = json.loads(back.stdout)
        assert (shown["outcomes"]["accepted"], shown["refused"], shown["left_out"]) == (COUNT, 1, 0)
        assert "segwatch.predictions:0: label_mismatch" in back.stderr

    @pytest.mark.parametrize("knows_queries", [True, False])
    def test_a_push_that_breaks_off_doubles_no_task_and_gives_back_only_what_is_not_there(
        self, filled: Settings, tool: tuple[str, type[Tool]], monkeypatch: pytest.MonkeyPatch, knows_queries: bool
    ) -> None:
        studio = with_tool(filled, "labelstudio", tool[0], "old")

        def held() -> int:
            return len(json.loads(segwatch(studio, "relabel", "list", "--state", "claimed", "--json").stdout)["items"])

        monkeypatch.setattr(label_studio, "AT_ONCE", 2)
        tool[1].most_imports, tool[1].knows_queries = 1, knows_queries
        broken = segwatch(studio, "relabel", "push")
        assert isinstance(broken.exception, ToolError) and "503" in str(broken.exception)
        assert len(tool[1].tasks) == 4  # the proxy's answer was not taken for leave to send the same again
        assert held() == 2
        tool[1].most_imports = 1000
        done = segwatch(studio, "relabel", "push", "--json")
        assert json.loads(done.stdout)["samples"] == COUNT - 2, done.output
        assert sorted(one["data"]["input_id"] for one in tool[1].tasks) == [f"input-{i:06d}" for i in range(COUNT)]
        assert held() == COUNT
        with Store.open(studio, write=True) as store:  # as when the leases of a push that was killed have ended
            store.relabel.release([f"input-{i:06d}" for i in range(COUNT)], "labelstudio")
        assert json.loads(segwatch(studio, "relabel", "push", "--json").stdout)["samples"] == COUNT
        assert len(tool[1].tasks) == COUNT

    def test_a_sample_whose_task_was_labelled_gets_another_one(
        self, filled: Settings, tool: tuple[str, type[Tool]]
    ) -> None:
        settings = with_tool(filled, "labelstudio", tool[0], "old")
        tool[1].tasks.append({"data": {"input_id": "input-000002"}, "is_labeled": True})
        assert json.loads(segwatch(settings, "relabel", "push", "--json").stdout)["samples"] == COUNT
        assert len(tool[1].tasks) == COUNT + 1

    def test_queries_fit_into_an_address_whatever_inputs_are_called(self) -> None:
        inputs = [f'/mnt/kamera-süd/{"x" * (i % 200)}"{i}' for i in range(100)]
        portions = list(label_studio._queries(inputs))
        assert [one for some in portions for one in some] == inputs
        assert max(len(quote(label_studio._query(some))) for some in portions) <= 3000 and len(portions) > 1

    def test_a_personal_token_is_changed_for_one_of_a_few_minutes(
        self, filled: Settings, tool: tuple[str, type[Tool]]
    ) -> None:
        settings = with_tool(filled, "labelstudio", tool[0], "a.b.c")
        assert segwatch(settings, "relabel", "push", "--json").exit_code == 0
        back = segwatch(settings, "labels", "pull", "--json")
        assert nonzero(back) == {"accepted": COUNT}, back.output

    def test_cvat_there_and_back(self, filled: Settings, tool: tuple[str, type[Tool]]) -> None:
        settings = with_tool(filled, "cvat", tool[0], "pat")
        done = segwatch(settings, "relabel", "push", "--json")
        assert done.exit_code == 0, done.output
        # The task has images of three of the samples; the others are given back.
        assert json.loads(done.stdout)["samples"] == 3
        [body] = tool[1].patches
        assert {shape["frame"] for shape in body["shapes"]} == {0, 1, 2} and len(body["shapes"]) == 6
        assert body["shapes"][1]["points"][-4:] == [20, 5, 29, 14] and body["shapes"][1]["points"][:2] == [0, 100]
        assert {one["spec_id"]: one["value"] for one in body["tags"][0]["attributes"]} == {900: "relabel"}
        listed = json.loads(segwatch(settings, "relabel", "list", "--state", "open", "--json").stdout)["items"]
        assert len(listed) == 3
        back = segwatch(settings, "labels", "pull", "--json")
        assert nonzero(back) == {"accepted": 2}, back.output

    def test_a_second_push_after_a_cut_off_one_doubles_no_shape(
        self, filled: Settings, tool: tuple[str, type[Tool]]
    ) -> None:
        settings = with_tool(filled, "cvat", tool[0], "pat")
        segwatch(settings, "relabel", "push")
        with Store.open(settings, write=True) as store:
            store.relabel.release([f"input-{i:06d}" for i in range(3)], "cvat")
        assert json.loads(segwatch(settings, "relabel", "push", "--json").stdout)["samples"] == 3
        assert sum(len(body["shapes"]) for body in tool[1].patches) == 6

    def test_a_refused_push_gives_the_samples_back(self, filled: Settings, tool: tuple[str, type[Tool]]) -> None:
        settings = with_tool(filled, "cvat", tool[0], "wrong")
        done = segwatch(settings, "relabel", "push")
        assert isinstance(done.exception, ToolError) and "401" in str(done.exception)
        assert "wrong" not in str(done.exception)
        listed = json.loads(segwatch(settings, "relabel", "list", "--state", "open", "--json").stdout)["items"]
        assert len(listed) == COUNT

    def test_a_token_goes_nowhere_else(self, tool: tuple[str, type[Tool]]) -> None:
        class Elsewhere(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", f"{tool[0]}/api/jobs")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        api = ToolApi(f"http://127.0.0.1:{server.server_port}", lambda: "Bearer pat", 5)
        with pytest.raises(ToolError, match="302"):
            api.call("GET", "/api/jobs")
        server.shutdown()
        server.server_close()
        thread.join(5)
        assert tool[1].seen == []
        for url in ("file:///etc/passwd", "http://", "http://u:p@host", "ftp://host"):
            with pytest.raises(SettingsError, match="annotation.url"):
                ToolApi(url, lambda: "", 5)

    def test_a_proxy_of_the_environment_never_sees_the_token(
        self, tool: tuple[str, type[Tool]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, tool[0])
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(ToolError, match="no answer"):
            ToolApi("http://segwatch.invalid", lambda: "Bearer pat", 5, pause=lambda _: None).call("GET", "/api/labels")
        assert tool[1].seen == []

    @pytest.mark.parametrize(
        ("pieces", "announced", "why"),
        [
            ([b"x" * 600] * 3, None, "more than 1000 bytes"),
            ([b"x"] * 40, None, "takes longer than 1 s"),
            ([b"x" * 10], 20, "no answer"),
        ],
    )
    def test_an_answer_is_bounded_in_size_and_time_and_a_cut_off_one_is_none(
        self, pieces: list[bytes], announced: int | None, why: str
    ) -> None:
        class Slow(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                if announced is not None:
                    self.send_header("Content-Length", str(announced))
                self.end_headers()
                for piece in pieces:
                    self.wfile.write(piece)
                    self.wfile.flush()
                    if stop.wait(0.05 if len(piece) == 1 else 0):
                        return

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        stop = threading.Event()
        server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = ToolApi(f"http://127.0.0.1:{server.server_port}", lambda: "", 0.1, pause=lambda _: None)
        try:
            with pytest.raises(ToolError, match=why):
                api.call("GET", "/", most=1000)
        finally:
            stop.set()
            server.shutdown()
            server.server_close()

    def test_settings_that_are_missing_are_named(self, filled: Settings) -> None:
        assert "annotation.tool is not set" in str(segwatch(filled, "relabel", "push").exception)
        assert "annotation.url is not set" in str(
            segwatch(with_tool(filled, "cvat", "", "x"), "labels", "pull").exception
        )
