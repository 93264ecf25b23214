"""Where an answer may go: the reply topic is allow-listed for the tenant, and its partition exists."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.settings import Settings
from pipeline.transport.base import Partition, Producer, UnknownTopic
from schemas.errors import InvalidRequest, UnauthorizedReply
from schemas.record import ReplyAddress
from schemas.topics import Topics

DEFAULT_TENANT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The one partition that every record of one answer goes to."""

    partition: Partition
    correlation_id: str | None


class Routes:
    """Resolves reply addresses. Holds no connection: the producer comes with each call, since it may be rebuilt."""

    def __init__(self, topics: Topics, request_topics: Mapping[str, str], allowed: Mapping[str, tuple[str, ...]]):
        self._topics = topics
        self._tenants = request_topics
        self._allowed = allowed
        self._never = {topics.requests, topics.control, topics.dlq, *request_topics}

    @classmethod
    def of(cls, settings: Settings) -> "Routes":
        """Builds the rules from the settings."""
        tenants = {settings.topics.requests: DEFAULT_TENANT} | {topic.topic: topic.tenant for topic in settings.kafka.request_topics}
        return cls(settings.topics, tenants, {name: tenant.reply_topics for name, tenant in settings.tenants.items()})

    @property
    def request_topics(self) -> tuple[str, ...]:
        """Every topic that requests come from."""
        return tuple(self._tenants)

    def tenant(self, request_topic: str) -> str:
        """The tenant that a request topic belongs to."""
        return self._tenants[request_topic]

    def resolve(self, reply: ReplyAddress, tenant: str, producer: Producer) -> Route:
        """Finds the partition that the requester asked for.

        Raises:
            UnauthorizedReply: The topic is not on the tenant's list, is internal, or does not exist.
            InvalidRequest: The topic has no such partition.
        """
        topic = reply.reply_to or self._default_topic(reply)
        if not self._may_reply(tenant, topic):
            raise UnauthorizedReply("reply_to names a topic that is not allow-listed for this tenant", param="reply_to")
        try:
            count = producer.partitions(topic)
        except UnknownTopic:
            raise UnauthorizedReply("reply_to names a topic that does not exist", param="reply_to") from None
        if reply.reply_partition is None:
            return Route(partition=producer.partition_for(topic, _key(reply)), correlation_id=reply.correlation_id)
        if not 0 <= reply.reply_partition < count:
            raise InvalidRequest(f"reply_partition must be below {count}, the number of partitions of the reply topic", param="reply_partition")
        return Route(partition=Partition(topic, reply.reply_partition), correlation_id=reply.correlation_id)

    def fallback(self, reply: ReplyAddress, tenant: str, producer: Producer) -> Route:
        """Where a refusal goes: as asked for where that is allowed, else the default topic, by key."""
        try:
            return self.resolve(reply, tenant, producer)
        except InvalidRequest:
            topic = self._default_topic(reply)
            return Route(partition=producer.partition_for(topic, _key(reply)), correlation_id=reply.correlation_id)

    def dead_letters(self) -> Partition:
        """Where dead letters go: one partition, so that they keep their order."""
        return Partition(self._topics.dlq, 0)

    def _default_topic(self, reply: ReplyAddress) -> str:
        return self._topics.chunks if reply.stream else self._topics.results

    def _may_reply(self, tenant: str, topic: str) -> bool:
        if topic in self._never:
            return False
        if topic in {self._topics.chunks, self._topics.results}:
            return True
        return any(fnmatchcase(topic, pattern) for pattern in self._allowed.get(tenant, ()))


def _key(reply: ReplyAddress) -> bytes:
    return (reply.custom_id or reply.correlation_id or "").encode()
