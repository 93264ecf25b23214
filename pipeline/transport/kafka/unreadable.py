"""Getting past records that the library cannot decode, of which one would otherwise hold up its partition for good.

A header whose name is not UTF-8 is enough, and anybody may send one. The library raises, and its next poll would never
return: it goes on asking the broken fetch for more. So the fetch is thrown away; what stays unreadable when it is fetched
again goes to the worker as an empty record, which the worker answers as it answers any other that it can't parse.
"""

import logging
import time
from typing import Any

from kafka import TopicPartition

from pipeline.transport.base import Partition, Record
from pipeline.transport.kafka.inbox import Inbox

ATTEMPTS = 3  # a batch may also have been damaged on its way

_log = logging.getLogger(__name__)


class Unreadable:
    """Counts the attempts at each partition's unreadable offset."""

    def __init__(self, consumer: Any, inbox: Inbox):
        self._consumer = consumer
        self._inbox = inbox
        self._attempts: dict[TopicPartition, tuple[int, int]] = {}

    def step_over(self, error: Exception) -> None:
        """Fetches the offset again on which the last poll raised, or gives it up.

        The records behind it in its batch can't be reached either: each of them is given up in its turn, at once.
        """
        fetcher = self._consumer._fetcher  # noqa: SLF001 -- the only way out of the loop, and the only one who knows the place
        broken = fetcher._next_partition_records  # noqa: SLF001
        if broken is None:
            raise error
        fetcher._next_partition_records = None  # noqa: SLF001
        place = broken.topic_partition
        if place not in self._consumer.assignment():
            return
        offset = self._consumer.position(place)
        last, attempts = self._attempts.get(place, (offset, 0))
        attempts = attempts + 1 if offset == last else ATTEMPTS if offset == last + 1 and attempts >= ATTEMPTS else 1
        self._attempts[place] = (offset, attempts)
        if attempts >= ATTEMPTS:
            self._give_up(place, offset)

    def _give_up(self, place: TopicPartition, offset: int) -> None:
        _log.error("%s/%d: record %d cannot be decoded and passes as an empty one", *place, offset)  # its content stays out of the log
        partition = Partition(*place)
        empty = Record(partition=partition, offset=offset, timestamp_ms=time.time_ns() // 1_000_000, key=None, value=None, headers=())
        self._inbox.put({partition: [empty]})
        self._consumer.seek(place, offset + 1)
