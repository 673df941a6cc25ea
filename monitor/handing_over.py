"""Hands over what a command that ends has asked for: to Kafka or files, and to receivers, as ``segwatch run`` would."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from monitor.app import make_sink
from monitor.delivering import deliver_waiting, register
from monitor.errors import SegwatchError
from monitor.evaluate import filled_by_kafka
from monitor.receivers.files import load_receivers
from monitor.relay import relay_once
from monitor.settings import Settings
from monitor.store.store import Store

log = logging.getLogger(__name__)


@contextmanager
def handing_over(store: Store, settings: Settings, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """What the block asks for goes out at its end; what fails is for ``segwatch run``.

    Receivers are made known before the block: they get what is asked for from then on.

    Raises SettingsError before the block where the receivers' file is bad. At its end, where ``say`` is given, faults
    are told to it, since what the block did stands; else raises them. Messages for a Kafka that these settings do not
    name are left in the store, and that is said.
    """
    receivers = load_receivers(settings.actions.receivers_file)
    register(store, receivers)
    yield
    try:
        _relay(store, settings, say or log.warning)
        deliver_waiting(store, receivers, settings.kafka.actions_topic, settings.actions.deliver_within_us)
    except SegwatchError as error:
        if say is None:
            raise
        say(f"warning: actions wait in the store for segwatch run: {error}")


def _relay(store: Store, settings: Settings, say: Callable[[str], None]) -> None:
    """All of the outbox, but to files only where no service reads Kafka: its messages would never get there."""
    pending = store.outbox_backlog().pending
    if not pending:
        return
    if not settings.kafka.bootstrap_servers and filled_by_kafka(store):
        say(
            f"warning: messages wait in the store for segwatch run ({pending}): it is filled from Kafka, and"
            " kafka.bootstrap_servers is not set here"
        )
        return
    with closing(make_sink(settings)) as sink:
        while relay_once(store, sink):
            pass
