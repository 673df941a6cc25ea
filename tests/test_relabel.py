"""The relabel queue: one item a sample and cause, claims that end by themselves, labels that complete what waits.

``tests/real/test_relabel_postgres.py`` runs all this on PostgreSQL.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec.json import decode, encode

from monitor.errors import LeaseRefused, UnknownSample
from monitor.settings import Settings
from monitor.store import audit
from monitor.store.leader import Leader
from monitor.store.relabel import PRIORITY, Claim, Kind, RelabelRow
from monitor.store.store import Store
from monitor.store.values import LabelRow, OutboxMessage, SampleRow, SpotCheckRow
from tests.test_store import HOUR, Clock, row

MINUTE_US = 60_000_000
LEASE_US = 10 * MINUTE_US


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(settings: Settings, clock: Clock) -> Iterator[Store]:
    with Store.open(settings, write=True, clock=clock) as opened:
        yield opened


@pytest.fixture
def second_store(store: Store) -> Store:
    """What another process uses: in SQLite's one process the same store, in PostgreSQL one of its own."""
    return store


@pytest.fixture
def leader(store: Store) -> Iterator[Leader]:
    led = store.try_lead()
    assert led is not None
    with led:
        yield led


def wanted(
    name: str, cause: str = "drift: 02:00", kind: Kind = "drift", rank: int = 0, model: str = "street"
) -> RelabelRow:
    priority = PRIORITY[kind] + 99 - rank
    return RelabelRow(name, model, "3", cause, kind, kind, priority, f"because of {cause}", None, HOUR, 1)


def label(
    name: str, annotator: str = "ann", annotation_version: int = 1, model: str = "", version: str = ""
) -> LabelRow:
    return LabelRow(
        name, annotator, model, version, annotation_version, HOUR, "spot_check", None, "waiting",
        "cluster", "labels", 0, 0, b"{}", b"\x90",
    )  # fmt: skip


def put(store: Store, *labels: LabelRow) -> None:
    with store.transaction() as tx:
        tx.insert_labels(labels)


def seen(store: Store, *rows: SampleRow) -> None:
    with store.transaction() as tx:
        tx.insert_samples(rows)


def inputs(claim: Claim) -> list[str]:
    return list(dict.fromkeys(item.input_id for item in claim.items))


def states(store: Store) -> dict[tuple[str, str], str]:
    every = store.relabel.items(states=("open", "claimed", "done", "expired"))
    return {(item.input_id, item.cause): item.state for item in every}


class TestQueue:
    def test_a_sample_is_queued_once_for_a_cause_and_again_for_another(self, store: Store, leader: Leader) -> None:
        first = wanted("a")
        assert leader.queue_samples([first, wanted("b")]) == [first, wanted("b")]
        other = wanted("a", "drift: 03:00")
        assert leader.queue_samples([first._replace(reason="again"), other]) == [other]
        assert [(item.input_id, item.cause) for item in store.relabel.items()] == [
            ("a", "drift: 02:00"), ("a", "drift: 03:00"), ("b", "drift: 02:00"),
        ]  # fmt: skip
        assert {item.reason for item in store.relabel.items()} == {"because of drift: 02:00", "because of drift: 03:00"}

    def test_what_is_done_is_not_queued_again_for_the_same_cause(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a")])
        put(store, label("a"))
        assert leader.queue_samples([wanted("a")]) == []
        assert store.relabel.items() == []

    def test_items_stand_in_the_order_in_which_they_are_claimed(self, store: Store, leader: Leader) -> None:
        leader.queue_samples(
            [wanted("t", kind="training"), wanted("d", rank=3), wanted("e", rank=1), wanted("q", kind="quality")]
        )
        assert [item.input_id for item in store.relabel.items()] == ["e", "d", "q", "t"]
        assert inputs(store.relabel.claim(3, "ann", LEASE_US)) == ["e", "d", "q"]

    def test_spot_checks_stand_in_it_with_their_probability(self, store: Store, leader: Leader) -> None:
        rows = [
            SpotCheckRow("a", "street", "3", HOUR, "uniform", 0.02, "car", 5),
            SpotCheckRow("b", "street", "3", HOUR, "training", 0.4, "unsure", 5),
        ]
        put(store, label("c"))
        leader.record_spot_checks("street", "3", 2 * HOUR, [*rows, rows[0]._replace(input_id="c")])
        found = {item.input_id: (item.kind, item.stream, item.probability) for item in store.relabel.items()}
        assert found == {"a": ("spot_check", "uniform", 0.02), "b": ("training", "training", 0.4)}
        assert states(store)["c", "spot_check"] == "done"  # it has its label already


class TestClaims:
    def test_nobody_else_gets_what_is_claimed_until_the_lease_ends(
        self, store: Store, leader: Leader, clock: Clock
    ) -> None:
        leader.queue_samples([wanted("a", rank=0), wanted("b", rank=1)])
        mine = store.relabel.claim(1, "ann", LEASE_US)
        assert (inputs(mine), mine.lease_until_us) == (["a"], clock.now_us + LEASE_US)
        assert inputs(store.relabel.claim(5, "bob", LEASE_US)) == ["b"]
        assert inputs(store.relabel.claim(5, "eve", LEASE_US)) == []
        clock.now_us += LEASE_US
        assert {item.state for item in store.relabel.items()} == {"open"}
        assert inputs(store.relabel.claim(5, "eve", LEASE_US)) == ["a", "b"]

    def test_a_claim_takes_all_items_of_a_sample_so_that_it_is_labelled_once(
        self, store: Store, leader: Leader
    ) -> None:
        leader.queue_samples([wanted("a"), wanted("a", "quality: car", "quality"), wanted("b", rank=5)])
        mine = store.relabel.claim(1, "ann", LEASE_US)
        assert [(item.input_id, item.kind) for item in mine.items] == [("a", "drift"), ("a", "quality")]
        assert inputs(store.relabel.claim(5, "bob", LEASE_US)) == ["b"]

    def test_what_is_queued_for_a_claimed_sample_waits_for_its_lease(
        self, store: Store, leader: Leader, clock: Clock
    ) -> None:
        leader.queue_samples([wanted("a")])
        store.relabel.claim(1, "ann", LEASE_US)
        leader.queue_samples([wanted("a", "drift: 03:00")])
        assert store.relabel.claim(5, "bob", LEASE_US).items == []
        clock.now_us += LEASE_US
        assert len(store.relabel.claim(5, "bob", LEASE_US).items) == 2

    def test_only_a_model_or_kind(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a"), wanted("b", kind="quality"), wanted("c", model="yard")])
        assert inputs(store.relabel.claim(5, "ann", LEASE_US, kind="quality")) == ["b"]
        assert inputs(store.relabel.claim(5, "ann", LEASE_US, model="yard")) == ["c"]

    def test_release_lets_others_have_it_at_once(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a")])
        store.relabel.claim(1, "ann", LEASE_US)
        [item] = store.relabel.release(["a"], "ann")
        assert (item.state, item.claimed_by, item.lease_until_us) == ("open", None, None)
        assert inputs(store.relabel.claim(1, "bob", LEASE_US)) == ["a"]

    def test_renew_counts_from_now(self, store: Store, leader: Leader, clock: Clock) -> None:
        leader.queue_samples([wanted("a")])
        store.relabel.claim(1, "ann", LEASE_US)
        clock.now_us += LEASE_US - 1
        store.relabel.renew(["a"], "ann", LEASE_US)
        clock.now_us += LEASE_US - 1
        assert store.relabel.claim(1, "bob", LEASE_US).items == []
        clock.now_us += 1
        assert inputs(store.relabel.claim(1, "bob", LEASE_US)) == ["a"]

    def test_done_closes_and_may_be_said_twice(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a")])
        token = store.relabel.claim(1, "ann", LEASE_US).token
        assert len(store.relabel.complete(["a"], "ann", token)) == 1
        assert store.relabel.complete(["a"], "ann", token) == []
        [item] = store.relabel.items(states=("done",))
        assert (item.closed_by, item.claimed_by) == ("ann", "ann")


class TestMessages:
    """A request names what was newly queued, and there is none without that."""

    def asked(self, rows: Sequence[RelabelRow]) -> OutboxMessage:
        samples = [{"input_id": row.input_id} for row in rows]
        return OutboxMessage("-".join(row.input_id for row in rows), "t", None, encode({"samples": samples}))

    def test_it_names_what_was_not_queued_before(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a"), wanted("b")], self.asked)
        leader.queue_samples([wanted("b"), wanted("c")], self.asked)
        leader.queue_samples([wanted("b"), wanted("c")], self.asked)
        assert [one.message.id for one in store.actions.queued("t")] == ["a-b", "c"]

    def test_what_was_purged_meanwhile_is_neither_queued_nor_named(self, store: Store, leader: Leader) -> None:
        store.purge(["a"], None, "test", "asked", lambda state, _: state)
        leader.queue_samples([wanted("a")], self.asked)
        assert store.actions.queued("t") == []
        leader.queue_samples([wanted("a"), wanted("b")], lambda _: self.asked([wanted("a"), wanted("b")]))
        [queued] = store.actions.queued("t")
        assert decode(queued.message.value or b"") == {"samples": [{"input_id": "b"}]}
        assert [item.input_id for item in store.relabel.items()] == ["b"]


class TestAudit:
    def test_every_change_leaves_a_line_of_its_own_transaction(
        self, store: Store, leader: Leader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leader.queue_samples([wanted("a", rank=0), wanted("b", rank=1), wanted("b", "other", model="yard")])
        with monkeypatch.context() as patched:
            patched.setattr(audit, "append", _cut_off)
            with pytest.raises(RuntimeError, match="cut off"):
                store.relabel.claim(2, "ann", LEASE_US, by="http:ann")
        assert {item.state for item in store.relabel.items()} == {"open"}
        store.relabel.claim(3, "ann", LEASE_US, by="http:ann")
        store.relabel.renew(["a"], "ann", LEASE_US, by="http:ann")
        store.relabel.release(["a"], "ann", by="http:ann")
        store.relabel.complete(["b"], "ann", by="http:ann")
        store.relabel.complete(["b"], "ann", by="http:ann")  # changes nothing
        assert [(one.what, one.subject, one.detail["items"]) for one in store.read_audit()] == [
            ("relabel.claim", "street", 2), ("relabel.claim", "yard", 1), ("relabel.renew", "street", 1),
            ("relabel.release", "street", 1), ("relabel.done", "street", 1), ("relabel.done", "yard", 1),
        ]  # fmt: skip
        assert {one.who for one in store.read_audit()} == {"http:ann"}


def _cut_off(*_: object) -> None:
    raise RuntimeError("cut off")


class TestRefusals:
    @pytest.fixture
    def queue(self, store: Store, leader: Leader) -> Store:
        leader.queue_samples([wanted("a", rank=0), wanted("b", rank=1), wanted("c", rank=2)])
        store.relabel.claim(2, "ann", LEASE_US)
        return store

    @pytest.mark.parametrize("change", ["renew", "release", "complete"])
    @pytest.mark.parametrize(
        ("names", "who", "token", "reason"),
        [
            (["a"], "bob", None, r"^a: leased by ann until 1970-01-01T00:10:01Z$"),
            (["a"], "ann", "another", r"^a: leased by ann under another token$"),
            (["c"], "ann", None, r"^c: not claimed$"),
            (["z"], "ann", None, r"^z: not in the queue$"),
            (["a", "c"], "ann", None, r"^c: not claimed$"),
        ],
    )
    def test_a_foreign_lease_is_refused_by_name_and_nothing_changes(
        self, queue: Store, change: str, names: Sequence[str], who: str, token: str | None, reason: str
    ) -> None:
        before = queue.relabel.items()
        arguments = (names, who, LEASE_US, token) if change == "renew" else (names, who, token)
        with pytest.raises(LeaseRefused, match=reason):
            getattr(queue.relabel, change)(*arguments)
        assert queue.relabel.items() == before

    @pytest.mark.parametrize("change", ["renew", "release", "complete"])
    def test_so_is_one_that_has_ended(self, queue: Store, clock: Clock, change: str) -> None:
        clock.now_us += LEASE_US
        arguments = (["a"], "ann", LEASE_US) if change == "renew" else (["a"], "ann")
        with pytest.raises(LeaseRefused, match=r"^a: the lease of ann ended at 1970-01-01T00:10:01Z; claim it again$"):
            getattr(queue.relabel, change)(*arguments)
        assert {item.state for item in queue.relabel.items()} == {"open"}

    def test_so_is_one_that_somebody_else_has_claimed_since(self, queue: Store, clock: Clock) -> None:
        clock.now_us += LEASE_US
        queue.relabel.claim(1, "bob", LEASE_US)
        with pytest.raises(LeaseRefused, match="^a: leased by bob until "):
            queue.relabel.complete(["a"], "ann")

    def test_so_is_what_a_label_has_completed(self, queue: Store) -> None:
        put(queue, label("a", "carl"))
        with pytest.raises(LeaseRefused, match=r"^a: done since 1970-01-01T00:00:01Z \(label of carl\)$"):
            queue.relabel.release(["a"], "ann")


class TestLabels:
    def test_a_label_completes_all_items_of_its_input_whoever_has_claimed_them(
        self, store: Store, leader: Leader, clock: Clock
    ) -> None:
        leader.queue_samples([wanted("a"), wanted("a", "quality: car", "quality"), wanted("b")])
        store.relabel.claim(1, "ann", LEASE_US)
        put(store, label("a", "bob"))
        closed = store.relabel.items(states=("done",))
        assert [(item.input_id, item.closed_by, item.closed_us) for item in closed] == [
            ("a", "label of bob", clock.now_us)
        ] * 2
        assert [item.input_id for item in store.relabel.items()] == ["b"]

    def test_a_label_of_another_version_or_model_completes_nothing(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a")])
        put(store, label("a", model="street", version="4"), label("a", model="yard", version="3"))
        assert states(store) == {("a", "drift: 02:00"): "open"}
        put(store, label("a", model="street", version="3"))
        assert states(store) == {("a", "drift: 02:00"): "done"}

    def test_a_repeated_label_completes_nothing_that_was_queued_after_it(self, store: Store, leader: Leader) -> None:
        put(store, label("a"))
        leader.queue_samples([wanted("a", "annotators: x and y", "disagreement")])
        put(store, label("a"))
        assert states(store) == {("a", "annotators: x and y"): "open"}
        put(store, label("a", annotation_version=2))
        assert states(store) == {("a", "annotators: x and y"): "done"}

    def test_with_the_transaction_of_the_label_its_completion_is_undone(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a")])
        with pytest.raises(RuntimeError, match="cut off"), store.transaction() as tx:
            tx.insert_labels([label("a")])
            raise RuntimeError("cut off")
        assert states(store) == {("a", "drift: 02:00"): "open"}

    def test_tidying_finds_labels_that_came_before_and_records_that_are_too_old(
        self, store: Store, leader: Leader
    ) -> None:
        put(store, label("a"))
        leader.queue_samples(
            [wanted("a"), wanted("b")._replace(event_time_us=HOUR - 1), wanted("c"), wanted("d", model="yard")]
        )
        assert leader.tidy_queue({"street": HOUR}) == 2
        assert {name: state for (name, _), state in states(store).items()} == {
            "a": "done", "b": "expired", "c": "open", "d": "open",
        }  # fmt: skip

    def test_retention_takes_the_queue_along(self, store: Store, leader: Leader) -> None:
        leader.queue_samples([wanted("a"), wanted("b")._replace(event_time_us=HOUR + 1)])
        leader.expire(HOUR + 1)
        assert [item.input_id for item in store.relabel.items()] == ["b"]


class TestByHand:
    def test_the_version_that_saw_it_last_is_taken(self, store: Store) -> None:
        seen(store, row("a"), row("a", version="4", event_time_us=HOUR + 1), row("b"))
        store.relabel.add_by_hand(["a", "b"], "looks odd")
        found = {item.input_id: (item.version, item.reason, item.kind) for item in store.relabel.items()}
        assert found == {"a": ("4", "looks odd", "manual"), "b": ("3", "looks odd", "manual")}
        assert store.relabel.add_by_hand(["a"], "looks odd") == []

    def test_an_input_that_is_not_known_queues_nothing(self, store: Store) -> None:
        seen(store, row("a"), row("failed", status="error"))
        for name in ("z", "failed"):
            with pytest.raises(UnknownSample, match=f"^{name}: no record"):
                store.relabel.add_by_hand(["a", name], "odd")
        assert store.relabel.items() == []

    def test_of_two_models_one_must_be_named(self, store: Store) -> None:
        seen(store, row("a"), row("a", model="yard"))
        with pytest.raises(UnknownSample, match="'street' and 'yard'"):
            store.relabel.add_by_hand(["a"], "odd")
        assert len(store.relabel.add_by_hand(["a"], "odd", model="yard")) == 1

    def test_what_has_a_label_waits_for_another(self, store: Store, leader: Leader) -> None:
        seen(store, row("a"))
        put(store, label("a"))
        store.relabel.add_by_hand(["a"], "wrong label")
        leader.tidy_queue({})
        assert [item.stream for item in store.relabel.items()] == ["again"]


class TestAtOnce:
    def test_claimers_in_parallel_never_share_a_sample(self, store: Store, second_store: Store, leader: Leader) -> None:
        causes = ("drift: 02:00", "drift: 03:00", "drift: 04:00")
        leader.queue_samples([wanted(f"s{i:03d}", cause) for i in range(60) for cause in causes[: 1 + i % 3]])
        taken: list[tuple[str, str, str]] = []
        start = threading.Barrier(4)

        def work(number: int) -> None:
            own = (store, second_store)[number % 2]
            start.wait()
            while claim := own.relabel.claim(3, f"worker-{number}", LEASE_US).items:
                taken.extend((item.input_id, item.cause, f"worker-{number}") for item in claim)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(taken) == len({(name, cause) for name, cause, _ in taken}) == 120
        by_input: dict[str, set[str]] = {}
        for name, _, who in taken:
            by_input.setdefault(name, set()).add(who)
        assert len(by_input) == 60 and all(len(whos) == 1 for whos in by_input.values())

    def test_labels_that_arrive_while_others_claim_block_nobody_and_close_their_samples(
        self, store: Store, second_store: Store, leader: Leader
    ) -> None:
        leader.queue_samples([wanted(f"s{i:03d}") for i in range(60)])
        failures: list[BaseException] = []

        def guarded(number: int) -> None:
            try:
                if number == 0:
                    while store.relabel.claim(2, "ann", LEASE_US).items:
                        pass
                else:
                    for i in range(0, 60, 5):
                        order = range(i, i + 5) if number == 1 else range(i + 4, i - 1, -1)
                        put(second_store, *(label(f"s{j:03d}", f"annotator-{number}") for j in order))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        assert set(states(store).values()) == {"done"}


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["claim", "release", "complete", "renew", "wait", "label", "queue"]),
            st.sampled_from(["ann", "bob"]),
            st.integers(0, 3),
        ),
        max_size=25,
    )
)
@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
def test_whatever_happens_no_sample_is_leased_to_two(
    steps: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    clock = Clock()
    folder = tmp_path_factory.mktemp("queue")
    with Store.open(Settings(data_dir=str(folder)), write=True, clock=clock) as store:
        leader = store.try_lead()
        assert leader is not None
        holder: dict[str, tuple[str, int]] = {}
        labelled: set[str] = set()
        for number, (step, who, which) in enumerate(steps):
            name = f"s{which}"
            if step == "queue":
                leader.queue_samples([wanted(name, f"cause {number % 3}")])
            elif step == "claim":
                for item in store.relabel.claim(2, who, LEASE_US).items:
                    before = holder.get(item.input_id)
                    assert before is None or before[1] <= clock.now_us or before == (who, clock.now_us + LEASE_US)
                    holder[item.input_id] = (who, clock.now_us + LEASE_US)
            elif step == "wait":
                clock.now_us += LEASE_US // 2
            elif step == "label":
                put(store, label(name, annotation_version=number))
                labelled.add(name)
                holder.pop(name, None)
                assert not store.relabel.items(inputs=[name])
            else:
                arguments = ([name], who, LEASE_US) if step == "renew" else ([name], who)
                held = holder.get(name, ("", 0))
                is_mine = held[0] == who and held[1] > clock.now_us
                try:
                    changed = getattr(store.relabel, step)(*arguments)
                except LeaseRefused:
                    assert not is_mine
                else:
                    assert is_mine or (step == "complete" and not changed)
                    if is_mine and step == "renew":
                        holder[name] = (who, clock.now_us + LEASE_US)
                    elif is_mine:
                        holder.pop(name)
        leader.release()
