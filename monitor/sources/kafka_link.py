"""A worker's connection to Kafka: the client, what it knows of the topics, and when to try again."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import kafka
from kafka import TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.base import MemberState
from kafka.errors import BrokerResponseError, KafkaError, KafkaTimeoutError

from monitor.kafka_client import Connecting, Outage, consumer_config, raise_if_hopeless, reason
from monitor.settings import KafkaSettings
from monitor.sources.protocol import Partition

log = logging.getLogger(__name__)

CONNECT_S: Final = 3.0
ANSWER_S: Final = 5.0
RETRY_FIRST_S, RETRY_MOST_S = 0.5, 10.0


class Link:
    """Not connected before ``connect``; ``consumer`` is None until then and after ``close``."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str]) -> None:
        self.settings = settings
        self.config = consumer_config(settings)
        self.consumer: Any = None
        self.outage = Outage(log, f"Kafka at {settings.bootstrap_servers}")
        self.try_at_s = 0.0
        """When what failed last is worth another try, by the monotonic clock."""
        self._topics = tuple(topics)
        self._cluster: Any = None
        self._connecting = Connecting()
        self._present: frozenset[tuple[str, int]] | None = None
        self._missing: frozenset[str] = frozenset()
        self._retry_s = RETRY_FIRST_S

    def connect(self, listener: ConsumerRebalanceListener) -> None:
        """Make a client that has an answer about the topics. Raises KafkaError."""
        self._connecting = connecting = Connecting()
        try:
            consumer = kafka.KafkaConsumer(
                kafka_client=connecting, bootstrap_timeout_ms=round(CONNECT_S * 1000), **self.config
            )
            self._cluster = connecting.cluster
            consumer.subscribe(self._topics, listener=listener)
            self.refresh_metadata()
        except KafkaError:
            connecting.abandon()
            raise
        self.consumer = consumer
        if self._present is None:
            self._present = frozenset(
                (str(self._cluster.topic_id(topic)), number)
                for topic in self._topics
                for number in self._cluster.partitions_for_topic(topic) or ()
            )

    def close(self, leave_s: float) -> None:
        """Throw the client away; ``leave_s``: how long it may take to leave the group."""
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            try:
                consumer.close(autocommit=False, timeout_ms=round(leave_s * 1000))
            except KafkaError as error:
                log.debug("closing the consumer: %s", reason(error))
            finally:
                # A consumer that failed to close has not closed its client.
                self._connecting.abandon()

    @property
    def joining(self) -> bool:
        """Whether the group is being joined."""
        return self.consumer is not None and self.consumer.group_metadata().state is MemberState.REBALANCING

    # -- what the brokers say ------------------------------------------------------------------------------------

    def refresh_metadata(self) -> None:
        """Wait for an answer about our topics that was asked for now; KafkaError when none comes."""
        update = self._cluster.request_update()
        until_s = time.monotonic() + ANSWER_S
        while not update.is_done:
            if time.monotonic() > until_s:
                raise KafkaTimeoutError("no answer about the topics")
            time.sleep(0.002)
        # A topic that is not there is an answer too.
        if update.failed() and not isinstance(update.exception, BrokerResponseError):
            raise update.exception

    def identity(self, where: TopicPartition) -> Partition | None:
        """Who the partition is by the latest metadata; None while the topic is not there."""
        if where.partition not in (self._cluster.partitions_for_topic(where.topic) or ()):
            return None
        # Brokers before 2.8 give no ids; there a topic made again cannot be told from the old one.
        topic_id = self._cluster.topic_id(where.topic) or where.topic
        return Partition(str(self._cluster.cluster_id), str(topic_id), where.topic, where.partition)

    def born_later(self, partition: Partition) -> bool:
        """Whether the partition was not there yet when this worker first connected."""
        return (partition.topic_id, partition.number) not in (self._present or ())

    def mention_missing_topics(self) -> None:
        """One log line when a topic is missing, and one when it is there."""
        missing = frozenset(topic for topic in self._topics if self._cluster.partitions_for_topic(topic) is None)
        for topic in sorted(missing - self._missing):
            if topic in self._cluster.unauthorized_topics:
                log.warning("topic %s: this user may not read it; waiting until it may", topic)
            else:
                log.warning("topic %s is not there: waiting for it (segwatch topics create makes it)", topic)
        for topic in sorted(self._missing - missing):
            log.info("topic %s is there now", topic)
        self._missing = missing

    # -- failures ------------------------------------------------------------------------------------------------

    def note(self, error: KafkaError) -> None:
        """Log the beginning of an outage. Raises SettingsError where waiting cannot help."""
        raise_if_hopeless(error, self.settings)
        self.outage.begin(reason(error))

    def back_off(self) -> float:
        """Seconds until the next try; twice as long the next time."""
        delay_s, self._retry_s = self._retry_s, min(2 * self._retry_s, RETRY_MOST_S)
        return delay_s

    def answered(self) -> None:
        """The brokers answer: any outage is over."""
        self._retry_s = RETRY_FIRST_S
        self.outage.end()
