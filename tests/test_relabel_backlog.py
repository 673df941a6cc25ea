"""How much of the relabel queue waits, on /metrics and in ``segwatch status``.

``tests/real/test_relabel_postgres.py`` runs the class below on PostgreSQL.
"""

from __future__ import annotations

from monitor.metrics import Totals
from monitor.present import status_text
from monitor.relabel_series import OLDEST, SAMPLES, lines
from monitor.snapshot import snapshot
from monitor.status import status
from monitor.store.leader import Leader
from monitor.store.relabel_backlog import NOTHING, Backlog
from monitor.store.store import Store
from monitor.tallies import RECORDS, TallyKey
from monitor.windows import to_text
from tests.test_metrics import page_of, samples
from tests.test_relabel import LEASE_US, clock, label, leader, put, settings, store, wanted
from tests.test_store import HOUR, Clock

__all__ = ["clock", "leader", "settings", "store"]  # fixtures


class TestBacklog:
    def test_nothing_waits_at_first(self, store: Store, clock: Clock) -> None:
        assert store.relabel_backlog(clock.now_us) == {}

    def test_samples_are_counted_by_model_once_for_all_their_causes(
        self, store: Store, leader: Leader, clock: Clock
    ) -> None:
        early = wanted("b")._replace(created_us=clock.now_us - HOUR)
        later = [wanted("a"), wanted("a", "drift: 03:00"), wanted("c", model="yard")]
        leader.queue_samples([early, *(one._replace(created_us=clock.now_us) for one in later)])
        now_us = clock.now_us
        assert store.relabel_backlog(now_us) == {"street": Backlog(2, 0, now_us - HOUR), "yard": Backlog(1, 0, now_us)}

    def test_what_is_leased_is_claimed_until_the_lease_ends(self, store: Store, leader: Leader, clock: Clock) -> None:
        leader.queue_samples([wanted("a"), wanted("a", "drift: 03:00"), wanted("b")])
        store.relabel.claim(1, "ann", LEASE_US)
        # A new cause of a sample that somebody has is no other sample.
        leader.queue_samples([wanted("a", "drift: 04:00")])
        assert store.relabel_backlog(clock.now_us)["street"] == Backlog(1, 1, 1)
        clock.now_us += LEASE_US
        assert store.relabel_backlog(clock.now_us)["street"] == Backlog(2, 0, 1)

    def test_what_is_done_waits_no_longer(self, store: Store, leader: Leader, clock: Clock) -> None:
        leader.queue_samples([wanted("a"), wanted("b")])
        put(store, label("a"))
        assert store.relabel_backlog(clock.now_us)["street"].open == 1
        put(store, label("b"))
        assert store.relabel_backlog(clock.now_us) == {}

    def test_status_says_so(self, store: Store, leader: Leader, clock: Clock) -> None:
        leader.queue_samples([wanted("a"), wanted("b")])
        store.relabel.claim(1, "ann", LEASE_US)
        found = status(store, clock.now_us)
        assert found["relabel"] == [{"model": "street", "open": 1, "claimed": 1, "oldest": to_text(1)}]
        assert f"relabel queue of street: 1 open, 1 claimed, the oldest since {to_text(1)}" in status_text(found)

    def test_the_snapshot_has_it(self, store: Store, leader: Leader, clock: Clock) -> None:
        leader.queue_samples([wanted("a")])
        assert snapshot(store, HOUR, clock.now_us, 200).relabel == {"street": Backlog(1, 0, 1)}


def test_a_page_shows_both_states_of_each_model_and_the_age_of_what_waits() -> None:
    now_us = 10 * HOUR
    known = {TallyKey(RECORDS, model, "1", "ok", 0): 1 for model in ("street", "yard")}
    found = samples(page_of(Totals(now_us, known, relabel={"street": Backlog(3, 2, now_us - HOUR)})))
    shown = {
        (name, dict(labels).get("model"), dict(labels).get("state")): value for (name, labels), value in found.items()
    }
    assert shown["segwatch_relabel_queue_samples", "street", "open"] == 3
    assert shown["segwatch_relabel_queue_samples", "street", "claimed"] == 2
    assert shown["segwatch_relabel_oldest_age_seconds", "street", None] == 3600
    assert shown["segwatch_relabel_queue_samples", "yard", "open"] == 0
    assert ("segwatch_relabel_oldest_age_seconds", "yard", None) not in shown


def test_a_model_costs_three_series_at_most() -> None:
    assert [family for family, _, _ in lines("m", Backlog(1, 1, 1), HOUR)] == [SAMPLES, SAMPLES, OLDEST]
    assert [family for family, _, _ in lines("m", NOTHING, HOUR)] == [SAMPLES, SAMPLES]
