"""Kafka as a transport."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import kafka
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from pipeline.settings import KafkaSettings
from pipeline.transport.base import Consumer, GroupLag, Partition, Producer, TopicSpec, TopicState, UnknownTopic
from pipeline.transport.kafka.admin import Admin
from pipeline.transport.kafka.admission import Admission
from pipeline.transport.kafka.apart import ApartProducer
from pipeline.transport.kafka.clients import CONNECT_TIMEOUT_S, Clients, Made
from pipeline.transport.kafka.commits import Commits
from pipeline.transport.kafka.consumer import PumpedConsumer
from pipeline.transport.kafka.inbox import Inbox
from pipeline.transport.kafka.producer import IdempotentProducer
from pipeline.transport.kafka.pump import MAX_POLL_GAP_S, Pump
from pipeline.transport.kafka.rebalancing import Rebalancing

FETCH_BYTES = 4 * 1024 * 1024  # of one fetch; a larger record still comes, alone
PARTITION_FETCH_BYTES = 512 * 1024
HEARTBEATS_PER_SESSION = 20
MAX_HEARTBEAT_MS = 1_000  # a member hears of a rebalance by its heartbeat, and the others wait for it
METADATA_TIMEOUT_S = 5.0
METADATA_MAX_AGE_S = 60.0  # how late new partitions of a topic are noticed

_READING = {
    # Offsets that retention has removed go on at the beginning: replay, never skip.
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "fetch_max_bytes": FETCH_BYTES,
    "max_partition_fetch_bytes": PARTITION_FETCH_BYTES,
    # A partition that is resumed is fetched once the fetch under way has returned, for which this is the longest wait.
    "fetch_max_wait_ms": 250,
    "metadata_max_age_ms": int(METADATA_MAX_AGE_S * 1_000),
    "metrics_enabled": False,
}


class KafkaTransport:
    """Makes producers and consumers of a Kafka cluster.

    Args:
        settings: How to reach it.
        revoke_budget_s: How long a member may keep a partition that it is asked to release.
        connect_timeout_s: How long anything new looks for a broker before it says that there is none.
        producers_apart: Whether producers get a process of their own; worth its start to who has better uses for the interpreter.
    """

    def __init__(
        self, settings: KafkaSettings, *, revoke_budget_s: float, connect_timeout_s: float = CONNECT_TIMEOUT_S, producers_apart: bool = False
    ):
        self._settings = settings
        self._revoke_budget_s = revoke_budget_s
        self._clients = Clients(settings, connect_timeout_s)
        self._admin = Admin(self._clients)
        self._producers_apart = producers_apart

    def producer(self) -> Producer:
        """A new producer.

        Raises:
            BrokerUnavailable: No broker answers in time.
        """
        admission = Admission(self._admin)
        if self._producers_apart:
            return ApartProducer(self._settings, admission, self._clients.timeout_s)
        return IdempotentProducer(self._clients, admission)

    def consumer(self, group_id: str, topics: Sequence[str]) -> Consumer:
        """A new member of a group; it joins in the background.

        Raises:
            BrokerUnavailable: No broker answers in time.
            UnknownTopic: A topic does not exist; the library would ask for it many times a second.
        """
        missing = set(topics) - self._admin.describe(topics).keys()
        if missing:
            raise UnknownTopic(f"no topic {', '.join(sorted(missing))}: penstock topics apply")
        inbox, assignor = Inbox(), CooperativeStickyAssignor()
        rebalancing = Rebalancing(inbox, assignor, self._revoke_budget_s)
        made = self._make(
            {
                "group_id": group_id,
                "partition_assignment_strategy": [assignor],
                "session_timeout_ms": self._settings.session_timeout_ms,
                "heartbeat_interval_ms": min(MAX_HEARTBEAT_MS, self._settings.session_timeout_ms // HEARTBEATS_PER_SESSION),
                "max_poll_interval_ms": int(MAX_POLL_GAP_S * 1_000),
            }
        )
        rebalancing.attach(made.client, made.loop)
        made.client.subscribe(list(topics), listener=rebalancing)
        _wait_for_metadata(made, topics)
        return self._started(made, inbox, rebalancing, group_id)

    def reader(self, partitions: frozenset[Partition]) -> Consumer:
        """A consumer without a group over these partitions, at their end.

        Raises:
            BrokerUnavailable: No broker answers in time.
            UnknownTopic: One of the partitions does not exist.
        """
        ends = self._admin.offsets(partitions, OffsetSpec.LATEST)
        inbox = Inbox()
        inbox.joined = True
        inbox.assign(ends, announced=False)
        made = self._make({"group_id": None})
        made.client.assign([TopicPartition(*partition) for partition in partitions])
        for partition, end in ends.items():
            made.client.seek(TopicPartition(*partition), end)
        return self._started(made, inbox, None, None)

    def describe(self, topics: Sequence[str]) -> Mapping[str, TopicState]:
        """The topics that exist, by name."""
        return self._admin.describe(topics)

    def create(self, topics: Sequence[TopicSpec]) -> None:
        """Creates those that do not exist yet; leaves the others alone."""
        self._admin.create(topics)

    def lag(self, group_id: str, topics: Sequence[str]) -> Sequence[GroupLag]:
        """How far the group is behind, for every partition of the topics that exist."""
        return self._admin.lag(group_id, topics)

    def ping(self, timeout_s: float) -> str:
        """Asks the cluster for a sign of life.

        Raises:
            BrokerUnavailable: Nobody answers in time.
        """
        return self._admin.ping(timeout_s)

    def close(self) -> None:
        """Closes the client for questions; producers and consumers have theirs."""
        self._admin.close()

    def _make(self, extra: Mapping[str, Any]) -> Made:
        return self._clients.make(kafka.KafkaConsumer, {**_READING, **extra})

    def _started(self, made: Made, inbox: Inbox, rebalancing: Rebalancing | None, group_id: str | None) -> Consumer:
        commits = Commits(self._admin, made.client, inbox)
        pump = Pump(made, inbox, rebalancing, commits)
        pump.start()
        return PumpedConsumer(inbox, pump, commits, self._admin, group_id)


def _wait_for_metadata(made: Made, topics: Sequence[str]) -> None:
    """Waits a moment until the client knows the topics.

    As the group's leader it would assign nothing of a topic that it does not know, and have the whole group join twice.
    """
    deadline_s = time.monotonic() + METADATA_TIMEOUT_S
    while not all(made.network.cluster.partitions_for_topic(topic) for topic in topics) and time.monotonic() < deadline_s:
        time.sleep(0.005)
