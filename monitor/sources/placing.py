"""Where a Kafka partition goes on, from what the store and the broker say. No I/O: the decision alone."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.sources.protocol import Gap, Partition


@dataclass(frozen=True, slots=True)
class Place:
    """Read from ``start``. ``gap``: what the reader must be told first; ``remark``: what a person should know."""

    start: int
    gap: Gap | None = None
    remark: str | None = None


def place(
    partition: Partition,
    wanted: int | None,
    beginning: int,
    end: int,
    *,
    from_beginning: bool,
    diverged_at: int | None = None,
) -> Place:
    """Decide where to go on.

    ``wanted``: the next offset by the store, None for a partition that was never read, which starts at its beginning or
    its end (``from_beginning``). ``beginning``, ``end``: what the broker has, ``end`` excluded. ``diverged_at``: where
    the broker says that its log parted from the one that was read.

    - Before the beginning, retention was faster: a Gap of the offsets that are gone, which counts them as dropped.
    - Past the end (or the divergence), the log was cut back: an unclean leader election, a restored volume. What was
      counted stays counted. Going on from ``wanted`` would skip what is written next; starting over would find
      duplicates, and count every dead letter again. So it goes on at the end, and a Gap without length and with reason
      ``truncated`` tells the reader that offsets go back to ``stop``: nothing was dropped, and offsets below the stored
      one are new records.

    >>> camera = Partition("c", "t", "predictions", 0)
    >>> place(camera, 10, 25, 100, from_beginning=True).gap
    Gap(partition=Partition(cluster='c', topic_id='t', topic='predictions', number=0), start=10, stop=25, \
reason='retention')
    """
    if diverged_at is not None and wanted is not None and diverged_at < wanted:
        end = min(end, max(beginning, diverged_at))
    if wanted is None:
        return Place(beginning if from_beginning else end)
    if wanted < beginning:
        remark = f"offsets {wanted} to {beginning - 1} are gone (retention): counted as dropped"
        return Place(beginning, Gap(partition, wanted, beginning), remark)
    if wanted > end:
        remark = f"the log ends at {end}, and {wanted} was read already: it was cut back; going on at its end"
        return Place(end, Gap(partition, end, end, "truncated"), remark)
    return Place(wanted)
