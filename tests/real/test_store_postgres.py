"""The store on a real PostgreSQL: all that ``tests/test_store*.py`` says, with every worker on connections of its own,
and what only a server can do: go away, come back, and let many processes write at once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy

from monitor.errors import NotLeader, PartitionLost
from monitor.settings import Settings, StoreSettings
from monitor.store import scores
from monitor.store.database import DatabaseError
from monitor.store.store import Store
from monitor.store.values import DueWindow, OutboxMessage, PaneDelta, ScoreRow
from monitor.tallies import TallyKey
from tests import test_store, test_store_migrations
from tests.real.postgres import Postgres
from tests.test_store import BACK, COUNTED, FRONT, Clock, advance, concatenate, pane, row, run_together, stored_samples

for shared in (test_store, test_store_migrations):
    # The same tests and fixtures, collected here once more; what is defined below replaces theirs.
    globals().update({name: value for name, value in vars(shared).items() if not name.startswith("__")})

DIE_HALF_WAY = """
import os, signal, sys
from monitor.settings import Settings, StoreSettings
from monitor.sources.protocol import Partition
from monitor.store.store import Store
from monitor.store.values import Advance, SampleRow
store = Store.open(Settings(store=StoreSettings(url=sys.argv[1])), write=True)
partition = Partition("cluster", "id-1", "segwatch.predictions", 0)
with store.transaction() as tx:
    tx.advance(Advance(partition, None, 9, 100, None, None))
    tx.insert_samples([SampleRow("street", "3", "a", 1, 1, None, "{}", "ok", None, None, "topic", 0, 7)])
    print("half-way", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres.start() as started:
        yield started


@pytest.fixture
def settings(server: Postgres) -> Iterator[Settings]:
    own = store_settings(server)
    yield own
    server.execute(f"DROP DATABASE {own.store.url.rsplit('/', 1)[1]} WITH (FORCE)")


def store_settings(server: Postgres) -> Settings:
    """Settings for a new, empty database."""
    return Settings(store=StoreSettings(url=server.fresh_database()))


@pytest.fixture
def second_store(store: Store, settings: Settings, clock: Clock) -> Iterator[Store]:
    with Store.open(settings, write=True, clock=clock) as opened:
        yield opened


def backend(store: Store) -> int:
    """Process id of the server's end of the store's one idle connection."""
    with store._database.read() as connection:
        found: int = connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()")) or 0
        return found


class TestManyWorkers:
    def test_a_worker_waits_for_the_other_and_then_knows_what_is_new(self, store: Store, second_store: Store) -> None:
        inserted, waiting = threading.Event(), threading.Event()
        new: dict[str, list[bool]] = {}

        def first() -> None:
            with store.transaction() as tx:
                new["first"] = tx.insert_samples([row("b"), row("c")]).tolist()
                inserted.set()
                waiting.wait(10)
                time.sleep(0.2)  # the second is now waiting inside its insert

        def second() -> None:
            inserted.wait(10)
            with second_store.transaction() as tx:
                waiting.set()
                new["second"] = tx.insert_samples([row("d"), row("c"), row("a")]).tolist()

        run_together(first, second)
        assert new == {"first": [True, True], "second": [True, False, True]}

    def test_what_the_other_rolls_back_is_new_here(self, store: Store, second_store: Store) -> None:
        inserted = threading.Event()
        new: list[bool] = []

        def first() -> None:
            with pytest.raises(RuntimeError, match="on purpose"), store.transaction() as tx:
                tx.insert_samples([row("a")])
                inserted.set()
                time.sleep(0.2)
                raise RuntimeError("on purpose")

        def second() -> None:
            inserted.wait(10)
            with second_store.transaction() as tx:
                new.extend(tx.insert_samples([row("a")]))

        run_together(first, second)
        assert new == [True]

    def test_four_workers_that_fight_over_partitions_count_each_record_once(self, settings: Settings) -> None:
        """Every worker tries every partition; each batch carries records that other partitions carry too."""
        partitions = [FRONT, BACK]
        batches = 15
        seed = random.Random(7)
        content = [[[f"{seed.randrange(600):04d}" for _ in range(80)] for _ in range(batches)] for _ in partitions]

        def work(number: int) -> None:
            luck = random.Random(number)
            with Store.open(settings, write=True) as own:
                while True:
                    steps = [own.load_offset(partition) or 0 for partition in partitions]
                    open_ones = [index for index, step in enumerate(steps) if step < batches]
                    if not open_ones:
                        return
                    index = luck.choice(open_ones)
                    step = steps[index]
                    rows = [row(one) for one in content[index][step]]
                    luck.shuffle(rows)
                    try:
                        with own.transaction() as tx:
                            tx.advance(advance(partitions[index], expected=step or None, to=step + 1))
                            new = tx.insert_samples(rows)
                            tx.add_panes({pane(): PaneDelta(int(new.sum()), b"")})
                            tx.add_tallies({COUNTED: int(new.sum()), COUNTED._replace(label="read"): len(rows)})
                    except PartitionLost:
                        continue

        with Store.open(settings, write=True) as store:
            run_together(*[partial(work, number) for number in range(4)])
            distinct = len({one for partition in content for batch in partition for one in batch})
            read = 2 * batches * 80
            assert store.read_tallies() == {COUNTED: distinct, COUNTED._replace(label="read"): read}
            assert sum(part.records for part in store.read_panes("street", "3")) == distinct
            assert len(stored_samples(store)) == distinct

    def test_a_worker_killed_half_way_leaves_nothing_and_holds_nothing(self, store: Store, settings: Settings) -> None:
        command = [sys.executable, "-c", DIE_HALF_WAY, settings.store.url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"half-way\n"
            worker.kill()
        with store.transaction() as tx:
            tx.advance(advance(expected=None, to=9))
            assert tx.insert_samples([row("a")]).all()

    def test_workers_that_start_together_migrate_once(self, settings: Settings) -> None:
        run_together(*[lambda: Store.open(settings, write=True).close() for _ in range(4)])
        with Store.open(settings, write=False) as reader:
            assert reader.read_tallies() == {}

    def test_two_deliverers_never_hold_the_same_message(self, store: Store, second_store: Store, clock: Clock) -> None:
        for number in range(4):
            clock.now_us += 1
            with store.transaction() as tx:
                tx.add_outbox([OutboxMessage(f"m{number}", "topic", None, b"")])
        with store.claim_outbox(2) as first, second_store.claim_outbox(10) as second:
            assert [message.id for message in first] == ["m0", "m1"]
            assert [message.id for message in second] == ["m2", "m3"]
        assert store.outbox_pending() == 0

    def test_a_second_evaluator_does_no_harm(self, store: Store, second_store: Store) -> None:
        """Not even one that believes to lead: the unique key decides which verdict stands."""
        window = DueWindow("street", "3", "", 3_600_000_000, 0, "b1", 1)
        stored: dict[str, int | None] = {}
        inserted = threading.Event()

        def evaluate(name: str, own: Store) -> None:
            if name == "second":
                inserted.wait(10)
            with own._database.write() as connection:
                stored[name] = scores.insert_revision(connection, window, ScoreRow(3, True, name.encode(), 5))
                inserted.set()
                time.sleep(0.2)

        run_together(lambda: evaluate("first", store), lambda: evaluate("second", second_store))
        assert stored == {"first": 0, "second": None}
        assert [score.payload for score in store.scores("street")] == [b"first"]


class TestLostConnections:
    def test_a_leader_without_its_connection_no_longer_leads_and_another_does(
        self, store: Store, second_store: Store, server: Postgres
    ) -> None:
        leader = store.try_lead()
        assert leader is not None
        assert leader._connection is not None
        pid = leader._connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))
        leader._connection.rollback()
        assert second_store.try_lead() is None
        with store.transaction() as tx:
            tx.add_panes({pane(): PaneDelta(1, b"x")})
        server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        successor = second_store.try_lead()
        assert successor is not None, "the lock went with the connection"
        for _ in range(2):
            with pytest.raises(NotLeader):
                leader.fold(concatenate, (1,))
        assert store.try_lead() is None
        assert successor.fold(concatenate, (3_600_000_000,)) == 1
        successor.release()
        again = store.try_lead()
        assert again is not None
        again.release()

    def test_a_broken_transaction_may_be_tried_again(self, store: Store, server: Postgres) -> None:
        pid = backend(store)
        with pytest.raises(DatabaseError) as broken, store.transaction() as tx:
            tx.advance(advance(to=5))
            server.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
            tx.insert_samples([row("a")])
        assert broken.value.retriable
        assert store.load_offset(FRONT) is None
        with store.transaction() as tx:
            tx.advance(advance(to=5))
            assert tx.insert_samples([row("a")]).all()

    def test_an_idle_connection_that_broke_is_replaced_unnoticed(self, store: Store, server: Postgres) -> None:
        server.execute(f"SELECT pg_terminate_backend({backend(store)}, 5000)")
        with store.transaction() as tx:
            tx.add_tallies({COUNTED: 1})
        assert store.read_tallies() == {COUNTED: 1}

    def test_a_row_that_cannot_be_written_breaks_neither_connection_nor_store(self, store: Store) -> None:
        """A lone surrogate has no UTF-8; it is found when the server is already waiting for the rest of the COPY."""
        with pytest.raises(UnicodeEncodeError), store.transaction() as tx:
            tx.insert_samples([*(row(f"{number:04d}") for number in range(1000)), row("\ud800")])
        with store.transaction() as tx:
            assert tx.insert_samples([row("0000")]).all()

    def test_what_the_server_refuses_is_said_without_values(self, store: Store) -> None:
        bad = row("secret-input", confidence=0.5, event_time_us=2**70)
        with pytest.raises(DatabaseError, match="out of range for type bigint") as refused, store.transaction() as tx:
            tx.insert_samples([bad])
        assert not refused.value.retriable
        assert "secret-input" not in str(refused.value)
        assert stored_samples(store) == []

    def test_after_a_crash_of_the_server_what_was_committed_is_there_and_nothing_else(self) -> None:
        with Postgres.start() as own, Store.open(store_settings(own), write=True) as store:
            leader = store.try_lead()
            assert leader is not None
            with store.transaction() as tx:
                tx.advance(advance(to=5))
                tx.insert_samples([row("a")])
            own.execute("CHECKPOINT")
            with pytest.raises(DatabaseError) as broken, store.transaction() as tx:
                tx.advance(advance(expected=5, to=6))
                own.kill()
                tx.insert_samples([row("b")])
            assert broken.value.retriable
            with pytest.raises(DatabaseError) as gone:
                store.load_offset(FRONT)
            assert gone.value.retriable
            own.restart()
            assert store.load_offset(FRONT) == 5
            with pytest.raises(NotLeader):
                leader.due(0)
            with store.transaction() as tx:
                tx.advance(advance(expected=5, to=6))
                assert tx.insert_samples([row("a"), row("b")]).tolist() == [False, True]
            leader = store.try_lead()
            assert leader is not None
            leader.release()


def test_a_large_batch_is_copied_whole(store: Store) -> None:
    rows = [row(f"{number:06d}", slices='{"site": "\\\\N\t\n"}', confidence=number / 7) for number in range(5000)]
    with store.transaction() as tx:
        assert tx.insert_samples(rows).all()
    found = stored_samples(store)
    assert found == [tuple(one) for one in rows]
    with store.transaction() as tx:
        assert not tx.insert_samples(rows).any()


def test_the_password_comes_from_its_own_setting(server: Postgres, tmp_path: Path) -> None:
    url = server.fresh_database()
    server.execute("CREATE ROLE guarded LOGIN PASSWORD 'p@ss/word'")
    (server.directory / "data" / "pg_hba.conf").write_text(
        "host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
    )
    server.execute("SELECT pg_reload_conf()")
    database = url.rsplit("/", 1)[1]
    server.execute("GRANT ALL ON SCHEMA public TO guarded", database)
    guarded = url.replace("segwatch@", "guarded@")
    with pytest.raises(DatabaseError, match="password"):
        Store.open(Settings(store=StoreSettings(url=guarded)), write=True)
    with Store.open(Settings(store=StoreSettings(url=guarded, password="p@ss/word")), write=True) as store:
        with store.transaction() as tx:
            tx.add_tallies({TallyKey("records", "", "", "", 0): 1})
        assert "p@ss" not in store._database.name
