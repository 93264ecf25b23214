"""Records that must land. The producer here is scripted: what it does wrong, a real one does rarely; the transport's own tests meet the real ones."""

from dataclasses import dataclass, field

import pytest

from pipeline.delivery.outbox import RECORD_OVERHEAD_BYTES, RESEND_AFTER_S, Channel, Outbox
from pipeline.transport.base import (
    Acknowledged,
    Acknowledgement,
    BrokerUnavailable,
    Partition,
    ProducerFatal,
    RecordRejected,
    TransportError,
    UnknownTopic,
)
from schemas.record import Encoded

REPLIES = Partition("replies", 0)


@dataclass
class ScriptedProducer:
    """Keeps what is sent and answers when told to."""

    sent: list[tuple[bytes, Acknowledgement]] = field(default_factory=list)
    refuses: TransportError | None = None
    closed: bool = False

    def send(self, partition: Partition, record: Encoded, on_ack: Acknowledgement) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.sent.append((record.value or b"", on_ack))

    def close(self, timeout_s: float) -> None:
        self.closed = True
        for _, on_ack in self.sent:
            on_ack(ProducerFatal("closed"))

    def values(self) -> list[bytes]:
        return [value for value, _ in self.sent]

    def acknowledge(self, *offsets: int) -> None:
        for index, offset in enumerate(offsets):
            self.sent[index][1](Acknowledged(REPLIES, offset))


class Desk:
    """An outbox with a producer that can be replaced, and a channel that keeps what it is told."""

    def __init__(self) -> None:
        self.producers: list[ScriptedProducer] = []
        self.landed: list[int] = []
        self.refusals: list[TransportError] = []
        self.outbox = Outbox(self._make)
        self.outbox.start()
        self.channel = Channel(on_refused=self.refusals.append)

    def _make(self) -> ScriptedProducer:
        self.producers.append(ScriptedProducer())
        return self.producers[-1]

    @property
    def producer(self) -> ScriptedProducer:
        return self.producers[-1]

    def post(self, *values: bytes) -> None:
        for value in values:
            self.outbox.post(self.channel, REPLIES, Encoded(key=b"k", value=value), self.landed.append)


@pytest.fixture
def desk() -> Desk:
    """A desk of the test's own."""
    return Desk()


def test_records_land_in_order_and_are_told_their_offset(desk):
    """`on_landed` is called once per record, in order, and not before `settle`."""
    desk.post(b"a", b"b")
    desk.producer.acknowledge(7, 8)
    assert desk.landed == []
    desk.outbox.settle(0.0)
    assert desk.landed == [7, 8]
    assert desk.channel.is_empty()


def test_unacknowledged_bytes_are_counted_until_they_land(desk):
    """The cap is measured in bytes: key, value and an overhead for each record."""
    desk.post(b"abc", b"defg")
    assert desk.outbox.unacknowledged_bytes == 2 * (1 + RECORD_OVERHEAD_BYTES) + 7
    desk.producer.acknowledge(0)
    desk.outbox.settle(0.0)
    assert desk.outbox.unacknowledged_bytes == 1 + RECORD_OVERHEAD_BYTES + 4
    assert desk.outbox.unacknowledged_records == 1


def test_a_late_acknowledgement_waits_for_the_earlier_one(desk):
    """A record counts as landed only when everything before it in its channel has."""
    desk.post(b"a", b"b")
    desk.producer.sent[1][1](Acknowledged(REPLIES, 1))
    desk.outbox.settle(0.0)
    assert desk.landed == []
    desk.producer.sent[0][1](Acknowledged(REPLIES, 0))
    desk.outbox.settle(0.0)
    assert desk.landed == [0, 1]


def test_a_failure_resends_from_the_first_unacknowledged_record(desk):
    """After a failed send everything from it on goes out again, in order, after a pause; readers drop the repeats."""
    desk.post(b"a", b"b", b"c")
    desk.producer.acknowledge(0)
    desk.producer.sent[1][1](BrokerUnavailable("gone"))
    desk.producer.sent[2][1](Acknowledged(REPLIES, 2))
    desk.outbox.settle(10.0)
    assert desk.landed == [0]
    desk.outbox.settle(10.0 + RESEND_AFTER_S / 2)
    assert desk.producer.values() == [b"a", b"b", b"c"]
    desk.outbox.settle(10.0 + RESEND_AFTER_S)
    assert desk.producer.values() == [b"a", b"b", b"c", b"b", b"c"]
    desk.producer.sent[3][1](Acknowledged(REPLIES, 3))
    desk.producer.sent[4][1](Acknowledged(REPLIES, 4))
    desk.outbox.settle(11.0)
    assert desk.landed == [0, 3, 4]


def test_what_is_posted_while_a_channel_is_broken_waits_its_turn(desk):
    """A later record never overtakes one that has to be sent again."""
    desk.post(b"a")
    desk.producer.sent[0][1](BrokerUnavailable("gone"))
    desk.outbox.settle(0.0)
    desk.post(b"b")
    assert desk.producer.values() == [b"a"]
    desk.outbox.settle(RESEND_AFTER_S)
    assert desk.producer.values() == [b"a", b"a", b"b"]


def test_an_acknowledgement_of_an_earlier_sending_is_not_taken_for_this_one(desk):
    """When a record was sent twice, the first sending's late answer counts for nothing."""
    desk.post(b"a")
    first = desk.producer.sent[0][1]
    first(BrokerUnavailable("gone"))
    desk.outbox.settle(0.0)
    desk.outbox.settle(RESEND_AFTER_S)
    first(Acknowledged(REPLIES, 5))
    desk.outbox.settle(1.0)
    assert desk.landed == []


def test_a_fatal_producer_is_replaced_and_nothing_is_lost(desk):
    """What a dead producer did not acknowledge goes out through its successor."""
    desk.post(b"a", b"b")
    desk.producer.sent[0][1](ProducerFatal("fenced"))
    desk.outbox.settle(0.0)
    assert desk.producers[0].closed
    desk.outbox.settle(RESEND_AFTER_S)
    assert len(desk.producers) == 2
    assert desk.producer.values() == [b"a", b"b"]
    desk.producer.acknowledge(0, 1)
    desk.outbox.settle(1.0)
    assert desk.landed == [0, 1]


@pytest.mark.parametrize("error", [RecordRejected("too large"), UnknownTopic("no such topic")])
def test_a_refused_record_kills_its_channel_alone(desk, error):
    """What would be refused again is reported once; the channel takes no more, others go on."""
    other = Channel(on_refused=desk.refusals.append)
    desk.post(b"a", b"b")
    desk.outbox.post(other, REPLIES, Encoded(key=None, value=b"x"), desk.landed.append)
    desk.producer.sent[0][1](error)
    desk.producer.sent[2][1](Acknowledged(REPLIES, 9))
    desk.outbox.settle(0.0)
    assert desk.refusals == [error]
    assert desk.landed == [9]
    assert desk.outbox.unacknowledged_records == 0
    desk.post(b"c")
    assert desk.outbox.unacknowledged_records == 0


def test_a_send_that_raises_is_treated_like_one_that_fails(desk):
    """An unknown topic raises at once in the producer and reaches the channel like any refusal."""
    desk.producer.refuses = UnknownTopic("no such topic")
    desk.post(b"a")
    desk.outbox.settle(0.0)
    assert isinstance(desk.refusals[0], UnknownTopic)


def test_an_abandoned_channel_is_silent(desk):
    """When the partition belongs to somebody else, late acknowledgements mean nothing."""
    desk.post(b"a")
    desk.outbox.abandon(desk.channel)
    desk.producer.acknowledge(0)
    desk.outbox.settle(0.0)
    assert desk.landed == []
    assert desk.outbox.unacknowledged_bytes == 0
