"""Images in a real S3-compatible server: kept ones, and those that records name by URI."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
import pytest

from monitor.errors import BadRecord
from monitor.images import ImageStoreError, input_digest, name_of, open_images
from monitor.images.expiry import expire_images
from monitor.images.s3_objects import S3Images
from monitor.purge import PurgeRequest, purge_inputs
from monitor.records import fetch_image
from monitor.s3 import S3Reader, open_bucket
from monitor.settings import S3Settings, SampleSettings, Settings
from monitor.windows import DAY_US
from tests.embedded import HOUR_US, NOW_US, encode, feed, image_record, open_store, outcomes_of, picture, settings_of
from tests.real.s3_server import KEY, SECRET, S3Server

EVENT_US = NOW_US - 2 * HOUR_US


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server.start() as started:
        yield started


@pytest.fixture
def bucket(server: S3Server, request: pytest.FixtureRequest) -> str:
    return server.make_bucket(f"images-{abs(hash(request.node.name)) % 10**9}")


def own(server: S3Server, **changes: Any) -> S3Settings:
    return S3Settings(**{"endpoint": server.endpoint, "access_key_id": KEY, "secret_access_key": SECRET, **changes})


def put(server: S3Server, bucket: str, key: str, data: bytes) -> None:
    """An object as some other program writes it."""
    url = obstore.sign(open_bucket(bucket, own(server)), "PUT", key, timedelta(minutes=5))
    request = urllib.request.Request(url, data, {"Content-Type": "image/jpeg"}, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def fetch(server: S3Server, bucket: str, key: str) -> tuple[dict[str, str], bytes]:
    """Headers and body, as a browser gets them."""
    url = obstore.sign(open_bucket(bucket, own(server)), "GET", key, timedelta(minutes=5))
    with urllib.request.urlopen(url, timeout=10) as answer:
        return {name.lower(): value for name, value in answer.headers.items()}, answer.read()


def settings_for(server: S3Server, bucket: str, folder: Path, **sections: Any) -> Settings:
    s3 = {"endpoint": server.endpoint, "access_key_id": KEY, "secret_access_key": SECRET}
    return settings_of(folder, samples={"url": f"s3://{bucket}/segwatch/kept"}, s3=s3, **sections)


class TestImages:
    def test_what_was_put_is_there_until_it_is_deleted(self, server: S3Server, bucket: str) -> None:
        images = S3Images(bucket, "segwatch/kept", own(server))
        names = [name_of("m", "1", text, EVENT_US - day * DAY_US) for text in ("../a", "b", "c") for day in (0, 1)]
        assert images.days() == [] and images.get(names[0]) is None and not images.has(names[0])
        for name in names:
            assert images.put(name, str(name).encode())
        assert not images.put(names[0], b"another"), "what is there stays"
        assert images.get(names[0]) == str(names[0]).encode()
        assert images.days() == sorted({name.day for name in names})
        for day in images.days():
            assert list(images.names(day)) == sorted(name for name in names if name.day == day)
        headers, body = fetch(server, bucket, f"segwatch/kept/{names[0]}")
        assert (headers["content-type"], body) == ("image/jpeg", str(names[0]).encode())
        assert images.delete(names[:4]) == 4
        assert sorted(name for day in images.days() for name in images.names(day)) == sorted(names[4:])
        images.delete(names)
        assert images.days() == []

    def test_days_expire(self, server: S3Server, bucket: str) -> None:
        images = S3Images(bucket, "", own(server))
        for day in range(4):
            for number in range(3):
                images.put(name_of("m", "1", str(number), NOW_US - day * DAY_US), b"x")
        assert expire_images(images, SampleSettings(keep_images_days=1, max_per_day=2), NOW_US) == 6 + 2
        assert [len(list(images.names(day))) for day in images.days()] == [2, 2]

    def test_encryption_is_asked_for(self, server: S3Server, bucket: str) -> None:
        name = name_of("m", "1", "a", EVENT_US)
        S3Images(bucket, "", own(server, server_side_encryption="AES256")).put(name, b"x")
        headers, _ = fetch(server, bucket, str(name))
        assert headers["x-amz-server-side-encryption"] == "AES256"

    def test_a_bucket_that_is_not_there_is_an_error_without_the_secret(self, server: S3Server) -> None:
        with pytest.raises(ImageStoreError, match=r"^s3://missing-bucket/x: ") as caught:
            S3Images("missing-bucket", "x", own(server)).put(name_of("m", "1", "a", EVENT_US), b"x")
        assert SECRET not in str(caught.value)

    def test_a_server_that_is_away_is_an_error_in_time(self, server: S3Server) -> None:
        away = own(server, endpoint="http://127.0.0.1:1")
        with pytest.raises(ImageStoreError, match=r"^s3://bucket/x: "):
            S3Images("bucket", "x", away).has(name_of("m", "1", "a", EVENT_US))


def test_ingest_keeps_and_purge_removes(server: S3Server, bucket: str, tmp_path: Path) -> None:
    settings = settings_for(server, bucket, tmp_path)
    with open_store(settings, ("yard",)) as store:
        feed(store, settings, [encode(image_record(n, EVENT_US)) for n in range(3)])
        images = open_images(settings)
        kept = [name.input for day in images.days() for name in images.names(day)]
        assert sorted(kept) == sorted(input_digest(f"frame-{n:06d}") for n in range(3))
        proof = purge_inputs(store, images, settings, PurgeRequest(("frame-000001",), None, "os:tester", ""))
        assert proof["inputs"][0]["removed"]["images"] == 1
        assert any("S3" in one["place"] for one in proof["not_reached"])
        assert len([name for day in images.days() for name in images.names(day)]) == 2
    assert not (tmp_path / "images").exists()


class TestUris:
    def prefixes(self, bucket: str) -> tuple[str, ...]:
        return (f"s3://{bucket}/live/",)

    @pytest.mark.parametrize("key", ["live/1.jpg", "live/a b/1.jpg", "live/ä~#{1}.jpg", "live/2026/11/x=1/1.jpg"])
    def test_an_object_is_read_by_its_key(self, server: S3Server, bucket: str, key: str) -> None:
        put(server, bucket, key, picture(1))
        reader = S3Reader(own(server))
        uri = f"s3://{bucket}/{quote(key)}"
        assert fetch_image(uri, self.prefixes(bucket), 10**6, s3=reader) == picture(1)

    def test_a_large_one_is_refused_and_a_missing_one_unavailable(self, server: S3Server, bucket: str) -> None:
        put(server, bucket, "live/big.jpg", bytes(300_000))
        reader = S3Reader(own(server))
        with pytest.raises(BadRecord, match="image_too_large"):
            fetch_image(f"s3://{bucket}/live/big.jpg", self.prefixes(bucket), 100_000, s3=reader)
        with pytest.raises(BadRecord, match="image_unavailable") as caught:
            fetch_image(f"s3://{bucket}/live/none.jpg", self.prefixes(bucket), 100_000, s3=reader)
        assert SECRET not in str(caught.value)

    def test_records_may_name_what_the_prefixes_allow_and_nothing_else(
        self, server: S3Server, bucket: str, tmp_path: Path
    ) -> None:
        for key in ("live/1.jpg", "private/1.jpg"):
            put(server, bucket, key, picture(1))
        settings = settings_for(server, bucket, tmp_path, images={"uri_prefixes": list(self.prefixes(bucket))})
        keys = ("live/1.jpg", "private/1.jpg", "live/../private/1.jpg", "live/2.jpg")
        records = [image_record(n, EVENT_US, image={"uri": f"s3://{bucket}/{key}"}) for n, key in enumerate(keys)]
        with open_store(settings, ("yard",)) as store:
            counts = feed(store, settings, [encode(one) for one in records])
            assert outcomes_of(store) == {"ok": 1, "dead_letter": 3}
            assert counts.reasons == {"uri_refused": 2, "image_unavailable": 1}
