"""The way back of acknowledgements, without Kafka."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.base import Acknowledged, BrokerUnavailable, Partition, TransportError
from pipeline.transport.kafka.acknowledgements import Acknowledgements

PARTITION = Partition("topic", 0)


def started() -> Acknowledgements:
    """Acknowledgements that run."""
    acks = Acknowledgements()
    acks.start()
    return acks


@given(st.permutations(range(12)))
def test_outcomes_wait_for_those_before_them(order):
    """However the library reports them, a partition's acknowledgements come in the order of sending, the other's too."""
    acks, seen = started(), []
    expected = [acks.expect(Partition("topic", n % 2), seen.append) for n in range(12)]
    for n in order:
        acks.settle(expected[n], Acknowledged(Partition("topic", n % 2), n // 2))
    assert acks.wait(10.0) == 0
    for number in (0, 1):
        assert [outcome.offset for outcome in seen if outcome.partition.number == number] == list(range(6))
    acks.stop()


def test_only_the_first_outcome_counts():
    """What was told to have failed does not succeed later on."""
    acks, seen = started(), []
    first, second = (acks.expect(PARTITION, seen.append) for _ in range(2))
    acks.settle(second, Acknowledged(PARTITION, 1))
    acks.settle_all(BrokerUnavailable("closed"))
    acks.settle(first, Acknowledged(PARTITION, 0))
    assert acks.wait(10.0) == 0
    acks.stop()
    assert [type(outcome) for outcome in seen] == [BrokerUnavailable, Acknowledged]


def test_a_record_that_was_not_sent_holds_up_nobody():
    """Its place in the line is free again."""
    acks, seen = started(), []
    sent = acks.expect(PARTITION, seen.append)
    acks.forget(acks.expect(PARTITION, seen.append))
    assert acks.wait(0.0) == 1
    acks.settle(sent, Acknowledged(PARTITION, 0))
    assert acks.wait(10.0) == 0
    acks.stop()
    assert seen == [Acknowledged(PARTITION, 0)]


def test_a_caller_that_holds_a_lock_does_not_meet_itself():
    """Settled on the caller's own thread, an acknowledgement still arrives on another."""
    acks, lock, seen = started(), threading.Lock(), []

    def on_ack(outcome: Acknowledged | TransportError) -> None:
        with lock:
            seen.append((outcome, threading.get_ident()))

    with lock:
        acks.settle(acks.expect(PARTITION, on_ack), Acknowledged(PARTITION, 0))
    assert acks.wait(10.0) == 0
    acks.stop()
    assert seen[0][1] != threading.get_ident()
