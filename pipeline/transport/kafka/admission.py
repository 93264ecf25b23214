"""What a producer refuses by itself, before the library sees it."""

import math

from pipeline.transport.base import Partition, RecordRejected, TransportError, UnknownTopic
from pipeline.transport.kafka.admin import Admin
from pipeline.transport.murmur2 import partition_of
from schemas.record import Encoded

MAX_REQUEST_BYTES = 16 * 1024 * 1024
NEWS_S = 10.0  # how old an answer may be on which a record is refused

_RECORD_OVERHEAD_BYTES, _HEADER_OVERHEAD_BYTES = 100, 10  # upper bounds of what the record format adds


class Admission:
    """Knows the topics that records are for.

    Any error of a batch that a retry cannot mend puts the library's idempotent producer into a state that it never
    leaves, an oversized record included. So what can be refused beforehand is refused here.
    """

    def __init__(self, admin: Admin):
        self._admin = admin

    def admit(self, partition: Partition, record: Encoded) -> None:
        """Refuses what the cluster would refuse. What was asked long ago is asked again before it speaks against a record.

        Raises:
            UnknownTopic: The topic or partition does not exist.
            RecordRejected: The record is too large for the topic, or the broker's ACLs do not let us write to it.
            BrokerUnavailable: Nothing is known of the topic yet, and no broker answers.
        """
        refusal = self._refusal(partition, record, math.inf) and self._refusal(partition, record, NEWS_S)
        if refusal:
            raise refusal

    def ask_again(self, topic: str) -> None:
        """Asks the cluster about a topic, whatever is known of it."""
        self._admin.info(topic, max_age_s=0.0)

    def forget(self, topic: str) -> None:
        """Lets the next record of a topic ask the cluster: what is known of it let a record pass that was refused."""
        self._admin.forget(topic)

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return self._admin.info(topic).partitions

    def partition_for(self, topic: str, key: bytes) -> Partition:
        """Where a record with that key belongs."""
        return Partition(topic, partition_of(key, self.partitions(topic)))

    def _refusal(self, partition: Partition, record: Encoded, max_age_s: float) -> TransportError | None:
        name, number = partition
        topic = self._admin.info(name, max_age_s)
        if not 0 <= number < topic.partitions:
            return UnknownTopic(f"{name} has {topic.partitions} partitions, there is no {number}")
        if not topic.is_writable:
            return RecordRejected(f"the broker's ACLs do not let us write to {name}")
        size_bytes = _RECORD_OVERHEAD_BYTES + len(record.key or b"") + len(record.value or b"")
        for header, value in record.headers:
            size_bytes += _HEADER_OVERHEAD_BYTES + 4 * len(header) + len(value)
        limit_bytes = min(topic.max_record_bytes, MAX_REQUEST_BYTES)
        if size_bytes > limit_bytes:
            return RecordRejected(f"record of about {size_bytes} bytes; {name} takes {limit_bytes}: raise max.message.bytes")
        return None
