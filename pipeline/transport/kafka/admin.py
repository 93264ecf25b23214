"""Questions to the cluster: topics, offsets, groups. One client serves all threads of the process."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import kafka
from kafka import TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from pipeline.transport.base import BrokerUnavailable, Committed, GroupLag, Partition, TopicSpec, TopicState, UnknownTopic
from pipeline.transport.kafka.clients import Clients
from pipeline.transport.kafka.errors import explain

ANSWER_TIMEOUT_S = 10.0  # how long a question is repeated while no broker answers it
REQUEST_TIMEOUT_S = 5.0
PAUSE_S = 0.1
UNLIMITED_BYTES = 2**31 - 1

# What a client of the library does not get over: it remembers coordinators and refused logins for good.
_STICKY = (errors.NotCoordinatorError, errors.KafkaConnectionError, errors.KafkaTimeoutError, errors.SaslAuthenticationFailedError)

_Answer = TypeVar("_Answer")


class TopicInfo(NamedTuple):
    """What a producer needs to know of a topic, and when the cluster said so."""

    partitions: int
    max_record_bytes: int
    is_writable: bool
    asked_s: float


class Admin:
    """Asks, and asks again while the cluster is not ready to answer."""

    def __init__(self, clients: Clients):
        self._clients = clients
        self._lock = threading.Lock()
        self._client: Any = None
        self._topics: dict[str, TopicInfo] = {}

    def info(self, topic: str, max_age_s: float = math.inf) -> TopicInfo:
        """A topic's partitions, record limit and whether we may write to it, as the cluster said at most so long ago.

        All producers of the process share what was asked, so that a new one can work while the cluster is away.

        Raises:
            UnknownTopic: No such topic.
        """
        known = self._topics.get(topic)
        if known is None or time.monotonic() - known.asked_s > max_age_s:
            self.forget(topic)
            known = self._topics[topic] = self._ask_info(topic)
        return known

    def forget(self, topic: str) -> None:
        """Lets the next one who wants to know of a topic ask the cluster."""
        self._topics.pop(topic, None)

    def check(self, partitions: Iterable[Partition]) -> None:
        """Makes sure that partitions exist.

        Raises:
            UnknownTopic: One of them does not.
        """
        counts: dict[str, int] = {}
        for topic, number in partitions:
            if topic not in counts:
                counts[topic] = len(self._found(topic)["partitions"])
            if not 0 <= number < counts[topic]:
                raise UnknownTopic(f"{topic} has {counts[topic]} partitions, there is no {number}")

    def describe(self, topics: Sequence[str]) -> dict[str, TopicState]:
        """The topics that exist, with all their settings."""
        found = {topic["name"]: topic for topic in self._describe(topics) if topic["error_code"] == 0}
        configs = self._config(list(found)) if found else {}
        return {
            name: TopicState(name=name, partitions=len(found[name]["partitions"]), config=configs.get(name, {})) for name in topics if name in found
        }

    def create(self, topics: Sequence[TopicSpec]) -> None:
        """Creates topics that do not exist yet, and waits until every partition has a leader."""
        existing = {topic["name"] for topic in self._describe([spec.name for spec in topics]) if topic["error_code"] == 0}
        missing = [spec for spec in topics if spec.name not in existing]
        for spec in missing:
            self._create(spec)
        if missing:
            self.ask("waiting for new topics", lambda client: client.wait_for_topics([spec.name for spec in missing]))

    def _create(self, spec: TopicSpec) -> None:
        wanted = {"num_partitions": spec.partitions, "replication_factor": self._clients.settings.replication_factor, "configs": dict(spec.config)}
        with contextlib.suppress(errors.TopicAlreadyExistsError):  # somebody was faster
            self.ask(f"creating topic {spec.name}", lambda client: client.create_topics({spec.name: wanted}))

    def offsets(self, partitions: Iterable[Partition], spec: Any) -> dict[Partition, int]:
        """Offsets by the library's specification (earliest, latest, a time); -1 where there is none.

        Raises:
            UnknownTopic: One of the partitions does not exist.
        """
        wanted = {TopicPartition(*partition): spec for partition in partitions}
        if not wanted:
            return {}
        self.check(Partition(*partition) for partition in wanted)
        found = self.ask("looking up offsets", lambda client: client.list_partition_offsets(wanted))
        return {Partition(*partition): answer.offset for partition, answer in found.items()}

    def committed(self, group_id: str, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        """What a group has committed; a partition without a commit is absent."""
        wanted = [TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        found = self.ask(f"looking up commits of group {group_id}", lambda client: client.list_group_offsets({group_id: wanted}))
        return {Partition(*p): Committed(c.offset, c.metadata or "") for p, c in found.get(group_id, {}).items() if c.offset >= 0}

    def lag(self, group_id: str, topics: Sequence[str]) -> list[GroupLag]:
        """How far a group is behind, for every partition of the topics that exist."""
        partitions = [Partition(t.name, number) for t in self.describe(topics).values() for number in range(t.partitions)]
        ends = self.offsets(partitions, OffsetSpec.LATEST)
        commits = self.committed(group_id, partitions)
        return [GroupLag(partition=p, committed=commits[p].offset if p in commits else None, end=ends[p]) for p in partitions]

    def ping(self, timeout_s: float) -> str:
        """Asks with a client of its own, so that the answer is news and comes in time."""
        extra = {"request_timeout_ms": max(1, int(timeout_s * 1_000))}
        client = self._clients.make(kafka.KafkaAdminClient, extra, timeout_s).client
        try:
            cluster = client.describe_cluster()
        except Exception as error:
            raise explain(error, f"asking {self._clients.settings.bootstrap_servers}") from error
        finally:
            client.close()
        nodes = [f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]]
        return f"Kafka cluster {cluster['cluster_id']}, {len(nodes)} node(s): {', '.join(sorted(nodes))}"

    def ask(self, doing: str, question: Callable[[Any], _Answer]) -> _Answer:
        """Puts a question, again and again while the cluster is not ready to answer.

        Raises:
            BrokerUnavailable: Nobody answered for `ANSWER_TIMEOUT_S`.
            TransportError: The cluster refuses.
        """
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            client = self._connected(ANSWER_TIMEOUT_S)
            try:
                return question(client)
            except errors.TopicAlreadyExistsError:
                raise
            except (errors.KafkaError, OSError, RuntimeError) as error:
                if isinstance(error, _STICKY):
                    self._drop(client)
                was_dropped = isinstance(error, RuntimeError) and client is not self._client  # another thread met a sticky error
                if not (was_dropped or isinstance(error, errors.RetriableError)) or time.monotonic() >= deadline_s:
                    raise explain(error, doing) from error
                time.sleep(PAUSE_S)

    def ask_coordinator(self, group_id: str, request: Any, timeout_s: float) -> Any:
        """Sends a request of the protocol to a group's coordinator, once.

        Raises:
            kafka.errors.KafkaError: No answer in time, or no coordinator.
        """
        client = self._connected(timeout_s)
        manager = client._manager  # noqa: SLF001 -- the library offers no commit in a member's name

        async def send() -> Any:
            node = await client._find_coordinator_id(group_id)  # noqa: SLF001
            return await manager.send(request, node_id=node)

        try:
            return manager.run(manager.wait_for, manager.call_soon(send), int(timeout_s * 1_000))
        except (errors.NotCoordinatorError, errors.KafkaConnectionError):
            self._drop(client)
            raise

    def close(self) -> None:
        """Closes the client; a later question makes another."""
        self._drop(self._client)

    def _ask_info(self, topic: str) -> TopicInfo:
        found = self._found(topic)
        operations = found.get("authorized_operations")
        config = self._config([topic]).get(topic, {})
        return TopicInfo(
            partitions=len(found["partitions"]),
            max_record_bytes=int(config.get("max.message.bytes", UNLIMITED_BYTES)),
            is_writable=not operations or "WRITE" in operations,
            asked_s=time.monotonic(),
        )

    def _found(self, topic: str) -> Mapping[str, Any]:
        for found in self._describe([topic]):
            if found["error_code"] == 0:
                return found
        raise UnknownTopic(f"topic {topic} does not exist: penstock topics apply")

    def _describe(self, topics: Sequence[str]) -> list[dict[str, Any]]:
        if not topics:
            return []
        return list(self.ask("describing topics", lambda client: client.describe_topics(list(topics))))

    def _config(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        found = self.ask("describing topics", lambda client: client.describe_configs(resources, config_filter="all"))
        return {
            name: {key: str(entry["value"]) for key, entry in entries.items() if entry["value"] is not None}
            for name, entries in found.get("topic", {}).items()
        }

    def _connected(self, timeout_s: float) -> Any:
        if not self._lock.acquire(timeout=timeout_s):
            raise BrokerUnavailable(f"no connection to {self._clients.settings.bootstrap_servers} after {timeout_s:.1f} s")
        try:
            if self._client is None:
                extra = {"request_timeout_ms": int(REQUEST_TIMEOUT_S * 1_000)}
                self._client = self._clients.make(kafka.KafkaAdminClient, extra, min(timeout_s, self._clients.timeout_s)).client
            return self._client
        finally:
            self._lock.release()

    def _drop(self, client: Any) -> None:
        if client is None or client is not self._client:
            return
        with self._lock:
            if client is self._client:
                self._client = None
                client.close()
