"""Reading the log from the command line."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pipeline.settings import Settings
from pipeline.transport.base import BrokerUnavailable, Partition, Record, Transport, UnknownTopic
from pipeline.transport.opening import open_transport

CONTACT_S = 5.0
POLL_S = 0.2
POLL_RECORDS = 500
SILENCE_S = 10.0
"""How long a partition that has more to read may stay silent."""


@contextmanager
def opened(settings: Settings) -> Iterator[Transport]:
    """The log that the settings name, once it has answered.

    Raises:
        BrokerUnavailable: Nobody answers.
    """
    log = open_transport(settings)
    try:
        log.ping(CONTACT_S)
        yield log
    finally:
        log.close()


def partitions_of(log: Transport, topics: Iterable[str]) -> frozenset[Partition]:
    """Every partition of the topics.

    Raises:
        UnknownTopic: One of them does not exist.
    """
    names = tuple(topics)
    states = log.describe(names)
    if missing := [name for name in names if name not in states]:
        raise UnknownTopic(f"no topic {', '.join(missing)}: start a worker, or run penstock topics apply")
    return frozenset(Partition(state.name, number) for state in states.values() for number in range(state.partitions))


def history(log: Transport, partitions: frozenset[Partition], since_ms: int) -> Iterator[Record]:
    """Yields what the partitions hold at this moment of `since_ms` (epoch milliseconds) and later, in offset order per partition.

    Raises:
        BrokerUnavailable: The log stopped answering.
    """
    with log.reader(partitions) as reader:
        ends = reader.end_offsets(partitions)
        starts = reader.offsets_for_time(partitions, since_ms)
        left = {partition for partition in partitions if starts[partition] < ends[partition]}
        reader.pause(partitions - left)
        for partition in left:
            reader.seek(partition, starts[partition])
        heard_s = time.monotonic()
        while left:
            for record in reader.poll(POLL_S, POLL_RECORDS):
                heard_s = time.monotonic()
                if record.offset < ends[record.partition]:
                    yield record
            done = {partition for partition in left if reader.position(partition) >= ends[partition]}
            reader.pause(frozenset(done))
            left -= done
            if left and time.monotonic() - heard_s > SILENCE_S:
                raise BrokerUnavailable(f"nothing came from {len(left)} partitions for {SILENCE_S:g} s")


def follow(log: Transport, partitions: frozenset[Partition], since_ms: int | None) -> Iterator[Record]:
    """Yields what is written to the partitions from `since_ms` (epoch milliseconds), or else from now on, without end."""
    with log.reader(partitions) as reader:
        if since_ms is not None:
            for partition, offset in reader.offsets_for_time(partitions, since_ms).items():
                reader.seek(partition, offset)
        while True:
            yield from reader.poll(POLL_S, POLL_RECORDS)
