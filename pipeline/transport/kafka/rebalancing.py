"""What a group's member does when its share changes. Runs on the library's event loop, while its `poll` waits."""

import logging
import time
from collections.abc import Iterable
from typing import Any

from kafka import TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from pipeline.transport.base import Partition
from pipeline.transport.kafka.inbox import Inbox

LOOK_S = 0.01

_log = logging.getLogger(__name__)


class Rebalancing(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    """Holds the group's hand-over until the worker has released what it has to give.

    Under the cooperative protocol the assignment has shrunk already when `on_partitions_revoked` is called, and the
    others get those partitions only once this member has joined again, which it does after the call. Heartbeats go on
    meanwhile, so the partitions are still ours to commit.
    """

    def __init__(self, inbox: Inbox, assignor: CooperativeStickyAssignor, revoke_budget_s: float):
        self._inbox = inbox
        self._assignor = assignor
        self._revoke_budget_s = revoke_budget_s
        self._consumer: Any = None
        self._loop: Any = None
        self.arriving: set[Partition] = set()
        self.is_closing = False

    def attach(self, consumer: Any, loop: Any) -> None:
        """Tells whose partitions these are, and how to sleep on the event loop."""
        self._consumer, self._loop = consumer, loop

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Keeps new partitions from being fetched; they reach the worker once their position is known."""
        assigned = list(assigned)
        self._consumer.pause(*assigned)
        self.arriving |= {Partition(*partition) for partition in assigned}

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Waits until the worker has let go, at most for the revoke budget."""
        partitions = {Partition(*partition) for partition in revoked}
        self.arriving -= partitions
        if self.is_closing:
            return
        deadline_s = time.monotonic() + self._revoke_budget_s
        asked = self._inbox.revoke(partitions)
        while self._inbox.holds(asked) and time.monotonic() < deadline_s and not self.is_closing:
            await self._loop.sleep(LOOK_S)
        late = asked & self._inbox.owned()
        if late:
            _log.warning("%d partitions were not released within %.1f s and go to others", len(late), self._revoke_budget_s)
            self._inbox.lose(late)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Takes the partitions away; without forgetting them here the assignor would claim them from their new owners."""
        self._assignor.member_assignment = None
        partitions = {Partition(*partition) for partition in lost}
        self.arriving -= partitions
        self._inbox.joined = False
        self._inbox.lose(partitions)
