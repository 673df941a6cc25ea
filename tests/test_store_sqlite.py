"""SQLite: one process writes, however many would like to, and a killed one leaves the way free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.errors import SettingsError, StoreError, WriterExists
from monitor.settings import Settings, StoreSettings
from monitor.store.database import DatabaseError
from monitor.store.store import Store
from monitor.tallies import TallyKey

COUNTED = TallyKey("records", "street", "3", "ok", 0)

HOLD = """
import sys
from monitor.settings import Settings
from monitor.store.store import Store
from monitor.tallies import TallyKey
store = Store.open(Settings(data_dir=sys.argv[1]), write=True)
with store.transaction() as tx:
    tx.add_tallies({TallyKey("records", "street", "3", "ok", 0): 1})
with store.transaction() as tx:
    tx.add_tallies({TallyKey("records", "street", "3", "ok", 0): 100})
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"))


def test_a_second_writing_process_is_refused_until_the_first_is_gone_even_by_kill_9(settings: Settings) -> None:
    command = [sys.executable, "-c", HOLD, settings.data_dir]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == b"writing\n"
            with pytest.raises(WriterExists, match=f"process {first.pid} already writes.*writer.lock"):
                Store.open(settings, write=True)
            with Store.open(settings, write=False) as reader:
                assert reader.read_tallies() == {COUNTED: 1}
        finally:
            first.send_signal(signal.SIGKILL)
    with Store.open(settings, write=True) as second:
        assert second.read_tallies() == {COUNTED: 1}, "what was not committed is gone, what was is there"


def test_a_second_writer_in_the_same_process_is_refused_too(settings: Settings) -> None:
    with Store.open(settings, write=True), pytest.raises(WriterExists, match=str(os.getpid())):
        Store.open(settings, write=True)
    Store.open(settings, write=True).close()


def test_files_lie_in_the_data_directory_or_where_the_url_says(settings: Settings, tmp_path: Path) -> None:
    Store.open(settings, write=True).close()
    assert (tmp_path / "data" / "segwatch.db").exists()
    elsewhere = Settings(store=StoreSettings(url=f"sqlite:///{tmp_path}/other/own.db"))
    Store.open(elsewhere, write=True).close()
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"own.db", "writer.lock"}


def test_a_reader_says_where_no_store_is(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data/segwatch\.db: there is no segwatch store here yet"):
        Store.open(settings, write=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "segwatch.db").touch()
    with pytest.raises(StoreError, match="there is no segwatch store here yet"):
        Store.open(settings, write=False)


def test_a_file_that_is_no_database_is_named_as_such_and_left_alone(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "segwatch.db").write_text("my thesis\n" * 100)
    with pytest.raises(DatabaseError, match=r"^/.*/data/segwatch\.db: file is not a database$") as refused:
        Store.open(settings, write=True)
    assert not refused.value.retriable
    assert (tmp_path / "data" / "segwatch.db").read_text() == "my thesis\n" * 100


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/data/writer\.lock: cannot be written"):
        Store.open(Settings(data_dir=str(tmp_path / "file" / "data")), write=True)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql://user@host/name", "mysql is not supported"),
        ("not a url", "not a database URL"),
        ("postgresql://user@host/name?sslmode=allow", "sslmode=allow is not supported"),
        ("postgresql://user@host/name?sslmode=verify-full&sslrootcert=/no/such.pem", "/no/such.pem: No such file"),
    ],
)
def test_an_address_that_will_not_do_is_explained(url: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=rf"store\.url: .*{complaint}"):
        Store.open(Settings(store=StoreSettings(url=url)), write=True)


def test_a_database_that_does_not_answer_may_be_tried_again() -> None:
    settings = Settings(store=StoreSettings(url="postgresql://user@127.0.0.1:1/name", password="secret"))
    with pytest.raises(DatabaseError, match="Connection refused") as refused:
        Store.open(settings, write=True)
    assert refused.value.retriable
    assert "secret" not in str(refused.value)
