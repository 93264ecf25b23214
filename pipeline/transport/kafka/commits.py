"""Commits of a group's member, beside its consumer.

The consumer's own `commit` is of no use while the group rebalances, which takes as long as the slowest member does: its
request would wait behind the pending JoinGroup of the same connection, so the library refuses it. The broker takes commits of the
last generation until everybody has joined. So they go over another connection, in the member's name, and the broker
judges: that is the fence.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from kafka import errors
from kafka.protocol.consumer import OffsetCommitRequest

from pipeline.transport.base import BrokerUnavailable, Committed, NotOwner, Partition
from pipeline.transport.kafka.admin import Admin
from pipeline.transport.kafka.errors import explain
from pipeline.transport.kafka.inbox import Inbox

PAUSE_S = 0.02
MAX_VERSION = 8  # later ones name topics by an id

_MOVED_ON = (errors.IllegalGenerationError, errors.UnknownMemberIdError, errors.FencedInstanceIdError)
_NOT_NOW = (errors.RebalanceInProgressError, errors.RetriableError)


class Commits:
    """Commits on the caller's thread, as the member that a consumer is at that moment.

    Args:
        admin: Whose connections are used.
        consumer: The library's consumer, which knows the member's generation.
        inbox: What knows the partitions that are owned.
    """

    def __init__(self, admin: Admin, consumer: Any, inbox: Inbox):
        self._admin = admin
        self._consumer = consumer
        self._inbox = inbox

    def commit(self, offsets: Mapping[Partition, Committed], timeout_s: float) -> None:
        """Commits offsets of owned partitions.

        Raises:
            NotOwner: The group has moved on; nothing was committed.
            BrokerUnavailable: No answer in time; whether it was committed is not known.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            # First who we are, then what is ours: should it be lost in between, the broker refuses the former generation.
            identity = self._consumer.group_metadata()
            self._inbox.check_owned(offsets)
            try:
                return self._commit_as(identity, offsets, deadline_s)
            except NotOwner:
                if self._consumer.group_metadata()[:3] == identity[:3]:
                    raise
                # This member has joined the next generation meanwhile, and may still own all of it.

    def commit_released(self, offsets: Mapping[Partition, Committed], timeout_s: float) -> None:
        """Commits offsets of partitions that were given back while the group still waits for that.

        Raises:
            NotOwner: The group did not wait.
            BrokerUnavailable: No answer in time.
        """
        self._commit_as(self._consumer.group_metadata(), offsets, time.monotonic() + timeout_s)

    def _commit_as(self, identity: Any, offsets: Mapping[Partition, Committed], deadline_s: float) -> None:
        if identity.generation_id < 0:  # a commit without a member would be taken from anybody once the group is empty
            raise NotOwner(f"this consumer has fallen out of group {identity.group_id}")
        request = _request(identity, offsets)
        while True:
            try:
                response = self._admin.ask_coordinator(identity.group_id, request, max(0.001, deadline_s - time.monotonic()))
                return _check(response)
            except _MOVED_ON as error:
                raise explain(error, f"committing for group {identity.group_id}") from error
            except (errors.KafkaError, OSError, RuntimeError) as error:
                failure = explain(error, f"committing for group {identity.group_id}")
                if not isinstance(error, (*_NOT_NOW, RuntimeError)):
                    raise failure from error
                if time.monotonic() + PAUSE_S > deadline_s:
                    raise BrokerUnavailable(str(failure)) from error
                time.sleep(PAUSE_S)


def _request(identity: Any, offsets: Mapping[Partition, Committed]) -> Any:
    topic_class = OffsetCommitRequest.OffsetCommitRequestTopic
    partition_class = topic_class.OffsetCommitRequestPartition
    by_topic = defaultdict(list)
    for (topic, number), committed in offsets.items():
        by_topic[topic].append(
            partition_class(
                partition_index=number, committed_offset=committed.offset, committed_leader_epoch=-1, committed_metadata=committed.metadata
            )
        )
    return OffsetCommitRequest(
        max_version=MAX_VERSION,
        group_id=identity.group_id,
        generation_id_or_member_epoch=identity.generation_id,
        member_id=identity.member_id,
        group_instance_id=None,
        topics=[topic_class(name=topic, partitions=partitions) for topic, partitions in by_topic.items()],
    )


def _check(response: Any) -> None:
    for topic in response.topics:
        for partition in topic.partitions:
            error = errors.for_code(partition.error_code)
            if error is not errors.NoError:
                raise error(f"{topic.name}/{partition.partition_index}")
