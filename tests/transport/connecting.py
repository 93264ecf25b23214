"""Transports on a real broker, and records that tell their place."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.settings import KafkaSettings
from pipeline.transport.kafka import KafkaTransport
from schemas.record import Encoded
from tests.broker import ExternalBroker, KafkaBroker
from tests.transport.actors import Member, until

NOBODY = "127.0.0.1:9"  # the discard port: nothing listens there


@contextmanager
def connected(servers: str, *, producers_apart: bool = False, **settings: object) -> Iterator[KafkaTransport]:
    """A transport, closed at the end."""
    known = KafkaSettings(bootstrap_servers=servers, **settings)  # type: ignore[arg-type]
    transport = KafkaTransport(known, revoke_budget_s=2.0, producers_apart=producers_apart)
    try:
        yield transport
    finally:
        transport.close()


def numbered(count: int, start: int = 0) -> list[Encoded]:
    """Records that tell their place."""
    return [Encoded(key=None, value=b"%d" % n) for n in range(start, start + count)]


def read_all(transport: KafkaTransport, topic: str, count: int, group: str = "group") -> Member:
    """A member of a group that has read so many records; close its consumer."""
    member = Member(transport.consumer(group, [topic]))
    until(lambda: len(member.records) >= count, member)
    return member


@pytest.fixture
def shared(kafka_broker: KafkaBroker | ExternalBroker) -> Iterator[KafkaTransport]:
    """The broker that all tests share."""
    with connected(kafka_broker.bootstrap_servers) as transport:
        yield transport
