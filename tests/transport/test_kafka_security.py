"""Logins and rights on a real broker: who it is, who one is, and what one may do there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import kafka
import pytest
from kafka import admin as kafka_admin

from pipeline.settings import KafkaSettings
from pipeline.transport.base import BrokerUnavailable, Partition, RecordRejected, TopicSpec, TransportError
from pipeline.transport.kafka import KafkaTransport
from schemas.record import Encoded
from tests.broker import KafkaBroker, PrivateBrokers
from tests.transport.actors import Member, until
from tests.transport.conftest import send
from tests.transport.connecting import connected, numbered, read_all

pytestmark = pytest.mark.integration


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
