"""What only a real broker can show of outages: it dies, hangs, or is not there."""

import threading
import time
from collections.abc import Callable

import pytest

from pipeline.settings import KafkaSettings
from pipeline.transport.base import Acknowledged, BrokerUnavailable, Committed, Partition, TopicSpec, TransportError
from pipeline.transport.kafka import KafkaTransport
from schemas.record import Encoded
from tests.broker import PrivateBrokers
from tests.transport.actors import PATIENCE_S, Member, until
from tests.transport.conftest import send
from tests.transport.connecting import NOBODY, connected, numbered, read_all

pytestmark = pytest.mark.integration
Outcomes = list[Acknowledged | TransportError]


def own_threads() -> set[str]:
    """The names of the threads that clients run."""
    return {thread.name for thread in threading.enumerate() if "kafka" in thread.name}


@pytest.mark.parametrize("apart", [False, True])
def test_a_broker_that_dies_in_the_middle_loses_and_repeats_nothing(private_broker: PrivateBrokers, apart: bool):
    """Killed and restarted under a stream of records: each is there once, in order, and acknowledged so; readers go on."""
    broker = private_broker()
    with connected(broker.bootstrap_servers, producers_apart=apart) as transport:
        transport.create([TopicSpec(name="topic", partitions=2)])
        outcomes: dict[int, Outcomes] = {0: [], 1: []}
        member = Member(transport.consumer("group", ["topic"]))
        with member.consumer, transport.producer() as producer:
            for n, record in enumerate(numbered(6_000)):
                producer.send(Partition("topic", n % 2), record, outcomes[n % 2].append)
                if n in (1_500, 3_500):
                    until(lambda n=n: len(outcomes[0]) > n // 4, member)  # some acknowledged, some in flight, some not sent
                    broker.kill()
                    threading.Timer(1.0, broker.start).start()
                    until(lambda: broker.pid is not None, member)
            producer.flush(PATIENCE_S)
            until(lambda: len(member.records) >= 6_000, member)
        for number in (0, 1):
            assert outcomes[number] == [Acknowledged(Partition("topic", number), offset) for offset in range(3_000)]
            values = [int(r.value or b"") for r in member.records if r.partition.number == number]
            assert values == list(range(number, 6_000, 2))


def test_a_broker_that_hangs_blocks_no_poll_and_every_wait_ends(private_broker: PrivateBrokers):
    """Frozen, it answers nothing: polls return at once, commits and flushes give up in time; thawed, everything goes on."""
    broker = private_broker()
    with connected(broker.bootstrap_servers, session_timeout_ms=30_000) as transport:
        transport.create([TopicSpec(name="topic", partitions=1)])
        partition, outcomes = Partition("topic", 0), []
        with transport.producer() as producer:
            send(producer, [(partition, record) for record in numbered(3)])
            member = read_all(transport, "topic", 3)
            with member.consumer:
                broker.pause()
                start_s = time.monotonic()
                for _ in range(2_000):
                    member.turn(timeout_s=0.0)
                producer.send(partition, Encoded(key=None, value=b"3"), outcomes.append)
                with pytest.raises(BrokerUnavailable):
                    member.consumer.commit({partition: Committed(3)}, timeout_s=0.5)
                with pytest.raises(BrokerUnavailable):
                    producer.flush(0.5)
                with pytest.raises(BrokerUnavailable):
                    transport.ping(0.5)
                assert time.monotonic() - start_s < 20.0
                broker.resume()
                until(lambda: len(member.records) == 4, member)
                member.consumer.commit({partition: Committed(4)}, timeout_s=20.0)
                until(lambda: outcomes == [Acknowledged(partition, 3)])


@pytest.mark.parametrize("apart", [False, True])
def test_closing_a_producer_under_an_outage_tells_those_who_wait(private_broker: PrivateBrokers, apart: bool):
    """Every open acknowledgement hears of it, once, before `close` returns."""
    broker = private_broker()
    with connected(broker.bootstrap_servers, producers_apart=apart) as transport:
        transport.create([TopicSpec(name="topic", partitions=1)])
        producer = transport.producer()
        outcomes: Outcomes = []
        producer.send(Partition("topic", 0), Encoded(key=None, value=b"0"), outcomes.append)
        producer.flush(PATIENCE_S)
        broker.kill()
        for record in numbered(100):
            producer.send(Partition("topic", 0), record, outcomes.append)
        producer.close(0.2)
        assert len(outcomes) == 101
        assert all(isinstance(outcome, BrokerUnavailable) for outcome in outcomes[1:])


@pytest.mark.parametrize(
    "use",
    [
        lambda transport: transport.producer(),
        lambda transport: transport.consumer("group", ["topic"]),
        lambda transport: transport.reader(frozenset({Partition("topic", 0)})),
        lambda transport: transport.describe(["topic"]),
        lambda transport: transport.ping(0.5),
    ],
    ids=["producer", "consumer", "reader", "describe", "ping"],
)
def test_without_a_broker_everything_says_so(use: Callable[[KafkaTransport], object]):
    """In bounded time, naming the address and the setting, and leaving no thread behind that tries for ever."""
    before = own_threads()
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=NOBODY), revoke_budget_s=2.0, connect_timeout_s=0.5)
    with pytest.raises(BrokerUnavailable, match=rf"(?s){NOBODY}.*kafka\.bootstrap_servers"):
        use(transport)
    assert own_threads() <= before
