"""What only a real broker can show: outages, logins, refusals, and records that the library chokes on."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import kafka
import pytest
from kafka import KafkaAdminClient
from kafka import admin as kafka_admin
from kafka.structs import MemberState

from pipeline.settings import KafkaSettings
from pipeline.transport import topics
from pipeline.transport.base import (
    Acknowledged,
    BrokerUnavailable,
    Committed,
    Partition,
    ProducerFatal,
    RecordRejected,
    TopicSpec,
    TransportError,
    UnknownTopic,
)
from pipeline.transport.kafka import KafkaTransport
from pipeline.transport.kafka.clients import Clients
from schemas.record import Encoded
from tests.broker import ExternalBroker, KafkaBroker, PrivateBrokers
from tests.transport.actors import PATIENCE_S, Member, OtherProcess, Recipe, until
from tests.transport.conftest import send

pytestmark = pytest.mark.integration

Outcomes = list[Acknowledged | TransportError]
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


def own_threads() -> set[str]:
    """The names of the threads that clients run."""
    return {thread.name for thread in threading.enumerate() if "kafka" in thread.name}


def test_a_client_that_is_closed_with_something_left_to_write_leaves_no_socket(kafka_broker: KafkaBroker):
    """More than the network takes at once is waiting when the client closes; nothing is left to the garbage collector."""
    made = Clients(KafkaSettings(bootstrap_servers=kafka_broker.bootstrap_servers)).make(KafkaAdminClient)
    made.client.list_topics()
    transports = [t for t in made.network._manager.transports if t._sock is not None]
    sockets = [transport._sock for transport in transports]
    stuck = transports[0]
    made.loop.run(lambda: stuck.write(bytes(64 * 2**20)) or stuck.close())
    assert stuck._sock.fileno() >= 0
    made.client.close()
    assert [socket.fileno() for socket in sockets] == [-1] * len(sockets)


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


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker with TLS and SASL listeners, on which only those without a name may do everything."""
    brokers = PrivateBrokers(tmp_path_factory.mktemp("secured"))
    rights = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS"}
    yield brokers(security=True, settings=rights)
    brokers.close()


@contextmanager
def logged_in(broker: KafkaBroker, mechanism: str, password: str | None = None, *, producers_apart: bool = False) -> Iterator[KafkaTransport]:
    """A transport that logs in as the broker's user."""
    login = {"sasl_mechanism": mechanism, "sasl_username": broker.username, "sasl_password": password or broker.password}
    with connected(broker.sasl_bootstrap_servers, producers_apart=producers_apart, security_protocol="SASL_PLAINTEXT", **login) as transport:
        yield transport


def allow(broker: KafkaBroker, topic: str, *operations: kafka_admin.ACLOperation) -> None:
    """Lets the broker's user do something with a topic."""
    client = kafka.KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    resource = kafka_admin.ResourcePattern(kafka_admin.ResourceType.TOPIC, topic)
    client.create_acls([kafka_admin.ACL(f"User:{broker.username}", "*", op, kafka_admin.ACLPermissionType.ALLOW, resource) for op in operations])
    client.close()


def test_tls_reaches_the_broker_and_checks_who_it_is(secured: KafkaBroker):
    """Records go both ways over TLS; without the authority's certificate the broker is not believed."""
    with connected(secured.tls_bootstrap_servers, security_protocol="SSL", ssl_cafile=secured.ca_file) as transport:
        transport.create([TopicSpec(name="tls", partitions=1)])
        with transport.producer() as producer:
            send(producer, [(Partition("tls", 0), record) for record in numbered(10)])
        read_all(transport, "tls", 10).consumer.close(10.0)
    with connected(secured.tls_bootstrap_servers, security_protocol="SSL") as transport, pytest.raises(BrokerUnavailable, match="certificate"):
        transport.ping(2.0)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("apart", [False, True])
def test_sasl_logs_in(secured: KafkaBroker, mechanism: str, apart: bool):
    """Producer, reader and questions all log in as the same user."""
    topic = f"sasl-{mechanism}-{apart}"
    with connected(secured.bootstrap_servers) as transport:
        transport.create([TopicSpec(name=topic, partitions=1)])
    allow(secured, topic, kafka_admin.ACLOperation.READ, kafka_admin.ACLOperation.WRITE)
    partition = Partition(topic, 0)
    with logged_in(secured, mechanism, producers_apart=apart) as log, log.producer() as producer, log.reader(frozenset({partition})) as reader:
        send(producer, [(partition, record) for record in numbered(5)])
        member = Member(reader)
        until(lambda: len(member.records) == 5, member)


@pytest.mark.parametrize(("mechanism", "apart"), [("PLAIN", False), ("SCRAM-SHA-256", False), ("PLAIN", True)])
def test_a_wrong_password_is_said_and_not_shown(secured: KafkaBroker, mechanism: str, apart: bool, caplog: pytest.LogCaptureFixture):
    """The error names the settings; neither it nor any log line, at any level, holds the password."""
    password = "wrong-horse-battery"
    with caplog.at_level(logging.DEBUG), logged_in(secured, mechanism, password, producers_apart=apart) as transport:
        for use in (transport.producer, lambda: transport.ping(5.0), lambda: transport.describe(["topic"])):
            with pytest.raises(TransportError, match="sasl_password") as refused:
                use()
            assert password not in str(refused.value)
            assert not isinstance(refused.value, BrokerUnavailable)
    assert password not in caplog.text
    assert password not in repr(KafkaSettings(sasl_mechanism="PLAIN", sasl_username="alice", sasl_password=password))  # type: ignore[arg-type]


def test_a_topic_that_may_not_be_written_is_refused_alone(secured: KafkaBroker):
    """The producer asks before it sends, because the library would never recover from the broker's refusal."""
    with connected(secured.bootstrap_servers) as transport:
        transport.create([TopicSpec(name=name, partitions=1) for name in ("mine", "theirs", "hidden")])
    allow(secured, "mine", kafka_admin.ACLOperation.WRITE)
    allow(secured, "theirs", kafka_admin.ACLOperation.READ)
    with logged_in(secured, "PLAIN") as transport, transport.producer() as producer:
        record = Encoded(key=None, value=b"0")
        with pytest.raises(RecordRejected, match="ACL"):
            producer.send(Partition("theirs", 0), record, lambda _: None)
        with pytest.raises(TransportError):
            producer.send(Partition("hidden", 0), record, lambda _: None)
        send(producer, [(Partition("mine", 0), record)])


def test_a_group_that_may_not_be_joined_says_so(secured: KafkaBroker):
    """The worker hears of it from `poll`, and not by waiting for partitions for ever."""
    with connected(secured.bootstrap_servers) as transport:
        transport.create([TopicSpec(name="closed", partitions=1)])
    allow(secured, "closed", kafka_admin.ACLOperation.READ)
    with logged_in(secured, "PLAIN") as transport, transport.consumer("forbidden", ["closed"]) as consumer:
        member = Member(consumer)
        with pytest.raises(TransportError, match="ACL"):
            until(lambda: False, member)


@pytest.fixture
def shared(kafka_broker: KafkaBroker | ExternalBroker) -> Iterator[KafkaTransport]:
    """The broker that all tests share."""
    with connected(kafka_broker.bootstrap_servers) as transport:
        yield transport


def test_commits_succeed_while_the_group_waits_for_a_member(shared: KafkaTransport, kafka_broker: KafkaBroker, topic_prefix: str):
    """A frozen process holds up a rebalance for its whole session; those that go on working go on committing."""
    topic, group = f"{topic_prefix}.topic", f"{topic_prefix}.group"
    shared.create([TopicSpec(name=topic, partitions=3)])
    recipe = Recipe(path=None, servers=kafka_broker.bootstrap_servers, session_timeout_s=20.0, revoke_budget_s=2.0)
    with OtherProcess(recipe, group, [topic]) as other, shared.consumer(group, [topic]) as consumer:
        works = Member(consumer)
        until(lambda: len(other.owns()) + len(works.owned) == 3 and works.owned and other.owns(), works)
        other.stop()
        with shared.consumer(group, [topic]) as newcomer:
            waits = Member(newcomer)
            until(lambda: consumer._pump._consumer.group_metadata().state == MemberState.REBALANCING, works, waits)
            one = min(works.owned)
            for offset in range(20):
                works.turn()
                consumer.commit({one: Committed(offset)}, timeout_s=1.0)
            assert consumer.committed(frozenset({one})) == {one: Committed(19)}
            assert consumer._pump._consumer.group_metadata().state == MemberState.REBALANCING
            assert not waits.owned
            other.kill()


def test_a_producer_that_can_never_send_again_says_so(shared: KafkaTransport, kafka_broker: KafkaBroker, topic_prefix: str):
    """A limit that shrinks behind its back takes the library's producer down for good; the next one works."""
    topic, outcomes = f"{topic_prefix}.shrunk", []
    shared.create([TopicSpec(name=topic, partitions=1)])
    with shared.producer() as producer:
        send(producer, [(Partition(topic, 0), record) for record in numbered(1)])
        client = kafka.KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap_servers)
        client.alter_configs([kafka_admin.ConfigResource("TOPIC", topic, {"max.message.bytes": "1000"})])
        client.close()
        producer.send(Partition(topic, 0), Encoded(key=None, value=b"x" * 5_000), outcomes.append)
        producer.flush(PATIENCE_S)
        assert [type(outcome) for outcome in outcomes] == [RecordRejected]
        with pytest.raises(ProducerFatal):
            producer.send(Partition(topic, 0), Encoded(key=None, value=b"1"), outcomes.append)
    with shared.producer() as successor:
        with pytest.raises(RecordRejected):
            successor.send(Partition(topic, 0), Encoded(key=None, value=b"x" * 5_000), outcomes.append)
        assert send(successor, [(Partition(topic, 0), Encoded(key=None, value=b"1"))]) == [Acknowledged(Partition(topic, 0), 1)]


def test_a_limit_that_grew_is_noticed(shared: KafkaTransport, kafka_broker: KafkaBroker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch):
    """Before it refuses a record on old news, the producer asks again."""
    monkeypatch.setattr("pipeline.transport.kafka.admission.NEWS_S", 0.0)
    topic = f"{topic_prefix}.grown"
    shared.create([TopicSpec(name=topic, partitions=1, config={"max.message.bytes": "1000"})])
    large = Encoded(key=None, value=b"x" * 5_000)
    with shared.producer() as producer:
        with pytest.raises(RecordRejected):
            producer.send(Partition(topic, 0), large, lambda _: None)
        client = kafka.KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap_servers)
        client.alter_configs([kafka_admin.ConfigResource("TOPIC", topic, {"max.message.bytes": "10000"})])
        client.create_partitions({topic: 2})
        client.close()
        until(lambda: shared.describe([topic])[topic].partitions == 2)
        assert send(producer, [(Partition(topic, 1), large)]) == [Acknowledged(Partition(topic, 1), 0)]


def test_a_topic_that_was_deleted_is_unknown_again(shared: KafkaTransport, kafka_broker: KafkaBroker, topic_prefix: str):
    """Sending to it ends, one way or the other, and never creates it anew."""
    topic = f"{topic_prefix}.gone"
    shared.create([TopicSpec(name=topic, partitions=1)])
    client = kafka.KafkaAdminClient(bootstrap_servers=kafka_broker.bootstrap_servers)
    with shared.producer() as producer:
        send(producer, [(Partition(topic, 0), record) for record in numbered(1)])
        client.delete_topics([topic])
        client.close()
        until(lambda: not shared.describe([topic]))
    with shared.producer() as producer, pytest.raises(UnknownTopic):
        producer.send(Partition(topic, 0), Encoded(key=None, value=b"1"), lambda _: None)
    assert not shared.describe([topic])


class _Mangled(str):
    """A header name that is not UTF-8 on the wire."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        return b"\xff\xfe"


def test_a_record_that_cannot_be_decoded_passes_as_an_empty_one(
    shared: KafkaTransport, kafka_broker: KafkaBroker, topic_prefix: str, caplog: pytest.LogCaptureFixture
):
    """And takes only those behind it in its own batch along; the partition moves on."""
    topic = f"{topic_prefix}.poisoned"
    shared.create([TopicSpec(name=topic, partitions=1)])
    with kafka.KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, linger_ms=200) as stranger:
        for n in range(6):
            headers = [(_Mangled("x"), b"secret")] if n == 3 else []
            stranger.send(topic, value=b"%d" % n, headers=headers, partition=0)
        stranger.flush()
        stranger.send(topic, value=b"6", partition=0).get(PATIENCE_S)
    member = read_all(shared, topic, 7)
    member.consumer.close(10.0)
    assert [(r.offset, r.value) for r in member.records] == [(0, b"0"), (1, b"1"), (2, b"2"), (3, None), (4, None), (5, None), (6, b"6")]
    assert caplog.text.count("cannot be decoded") == 3
    assert "secret" not in caplog.text


def test_topics_of_the_contract_take_compressed_batches_and_no_bombs(shared: KafkaTransport, kafka_broker: KafkaBroker, topic_prefix: str):
    """What strangers compress is expanded at the broker, where its size is limited: 60 MB of zeros in 60 kB are refused."""
    settings = KafkaSettings(topic_prefix=topic_prefix, partitions=1)
    specs = topics.contract(settings)
    assert topics.apply(shared, specs).missing == specs
    assert topics.plan(shared, specs).is_fulfilled
    name = f"{topic_prefix}.requests"
    with kafka.KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, compression_type="gzip", max_request_size=100_000_000) as stranger:
        assert stranger.send(name, value=b"0" * 1_000_000, partition=0).get(PATIENCE_S).offset == 0
        with pytest.raises(kafka.errors.MessageSizeTooLargeError):
            stranger.send(name, value=b"0" * 60_000_000, partition=0).get(PATIENCE_S)
    member = read_all(shared, name, 1)
    member.consumer.close(10.0)
    assert member.records[0].value == b"0" * 1_000_000


def test_a_session_timeout_that_the_broker_refuses_is_named(kafka_broker: KafkaBroker, topic_prefix: str):
    """The broker's own words say nothing of the setting."""
    with connected(kafka_broker.bootstrap_servers, session_timeout_ms=1_000) as transport:
        transport.create([TopicSpec(name=f"{topic_prefix}.topic", partitions=1)])
        with transport.consumer(f"{topic_prefix}.group", [f"{topic_prefix}.topic"]) as consumer:
            member = Member(consumer)
            with pytest.raises(TransportError, match="session_timeout_ms"):
                until(lambda: False, member)


def test_consumers_and_producers_leave_no_thread_behind(shared: KafkaTransport, topic_prefix: str):
    """Whatever they start ends with them."""
    topic = f"{topic_prefix}.topic"
    shared.create([TopicSpec(name=topic, partitions=1)])
    before = set(threading.enumerate())
    with ExitStack() as stack:
        producer = stack.enter_context(shared.producer())
        member = Member(stack.enter_context(shared.consumer(f"{topic_prefix}.group", [topic])))
        stack.enter_context(shared.reader(frozenset({Partition(topic, 0)})))
        send(producer, [(Partition(topic, 0), record) for record in numbered(1)])
        until(lambda: member.records, member)
    until(lambda: set(threading.enumerate()) <= before)
