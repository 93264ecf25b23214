"""The broker that the other integration tests stand on."""

import os
import select
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaTimeoutError

from compose.kafka.broker import BrokerFailedError
from tests.broker import ExternalBroker, KafkaBroker, PrivateBrokers, delete_topics, require_kafka

pytestmark = pytest.mark.integration

TIMEOUT_S = 30


def create_topic(bootstrap_servers: str, name: str) -> None:
    """Creates a topic of one partition."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    admin.create_topics([NewTopic(name, 1, 1)])
    admin.close()


def produce(topic: str, values: list[bytes], **connection) -> None:
    """Sends the values one by one, each after the one before was acknowledged."""
    producer = KafkaProducer(**connection)
    for value in values:
        producer.send(topic, value).get(timeout=TIMEOUT_S)
    producer.close()


def consume(topic: str, count: int, **connection) -> list[bytes]:
    """Returns the first `count` values of the topic; fewer when they do not come in time."""
    consumer = KafkaConsumer(**connection, auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=TIMEOUT_S * 1000)
    consumer.assign([TopicPartition(topic, 0)])
    values = [record.value for _, record in zip(range(count), consumer, strict=False)]
    consumer.close()
    return values


def topics(bootstrap_servers: str) -> list[str]:
    """Returns the names of the broker's topics."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    names = admin.list_topics()
    admin.close()
    return names


def test_the_shared_broker_serves_producers_and_consumers(kafka_broker: KafkaBroker | ExternalBroker, topic_prefix: str):
    """What a producer was acknowledged, a consumer reads, in order."""
    topic = f"{topic_prefix}.requests"
    create_topic(kafka_broker.bootstrap_servers, topic)
    produce(topic, [b"one", b"two"], bootstrap_servers=kafka_broker.bootstrap_servers)
    assert consume(topic, 2, bootstrap_servers=kafka_broker.bootstrap_servers) == [b"one", b"two"]


def test_topics_of_a_prefix_are_deleted_and_others_stay(kafka_broker: KafkaBroker | ExternalBroker, topic_prefix: str):
    """Cleaning up after one test leaves the topics of another alone."""
    gone, kept = f"{topic_prefix}-a.requests", f"{topic_prefix}-b.requests"
    create_topic(kafka_broker.bootstrap_servers, gone)
    create_topic(kafka_broker.bootstrap_servers, kept)
    delete_topics(kafka_broker.bootstrap_servers, f"{topic_prefix}-a")
    names = topics(kafka_broker.bootstrap_servers)
    assert (gone in names, kept in names) == (False, True)


def test_a_killed_broker_comes_back_with_its_data(private_broker: PrivateBrokers):
    """After SIGKILL and a restart the same address serves what was acknowledged before, and takes more."""
    broker = private_broker()
    create_topic(broker.bootstrap_servers, "kept")
    produce("kept", [b"before"], bootstrap_servers=broker.bootstrap_servers)
    broker.kill()
    assert broker.pid is None
    broker.restart()
    produce("kept", [b"after"], bootstrap_servers=broker.bootstrap_servers)
    assert consume("kept", 2, bootstrap_servers=broker.bootstrap_servers) == [b"before", b"after"]


def test_a_paused_broker_answers_once_it_resumes(private_broker: PrivateBrokers):
    """A record sent while the broker is frozen is acknowledged only after it goes on."""
    broker = private_broker()
    create_topic(broker.bootstrap_servers, "frozen")
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    producer.send("frozen", b"warm").get(timeout=TIMEOUT_S)
    broker.pause()
    sent = producer.send("frozen", b"late")
    with pytest.raises(KafkaTimeoutError):
        sent.get(timeout=1)
    broker.resume()
    assert sent.get(timeout=TIMEOUT_S).offset == 1
    producer.close()


def secured_connection(broker: KafkaBroker, how: str) -> dict[str, str]:
    """Returns what a client needs to connect over TLS, or with the SASL mechanism `how`."""
    if how == "TLS":
        return {"bootstrap_servers": broker.tls_bootstrap_servers, "security_protocol": "SSL", "ssl_cafile": str(broker.ca_file)}
    return {
        "bootstrap_servers": broker.sasl_bootstrap_servers,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": how,
        "sasl_plain_username": broker.username,
        "sasl_plain_password": broker.password,
    }


def metadata_answer(bootstrap_servers: str) -> bytes:
    """Returns the first bytes that a broker answers to a bare Metadata request; none when it hangs up."""
    host, port = bootstrap_servers.split(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">ihhihi", 14, 3, 0, 1, -1, 0))
        return connection.recv(8)


@pytest.fixture(scope="module")
def secured_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker with TLS and SASL listeners, shared by this file."""
    require_kafka()
    with KafkaBroker(tmp_path_factory.mktemp("secured"), security=True) as broker:
        yield broker


@pytest.mark.parametrize("how", ["TLS", "PLAIN", "SCRAM-SHA-256"])
def test_a_secured_broker_serves_clients_that_show_what_it_asks_for(secured_broker: KafkaBroker, how: str):
    """TLS, SASL/PLAIN and SCRAM connections carry records both ways."""
    create_topic(secured_broker.bootstrap_servers, f"by-{how}")
    connection = secured_connection(secured_broker, how)
    produce(f"by-{how}", [b"value"], **connection)
    assert consume(f"by-{how}", 1, **connection) == [b"value"]


def test_the_sasl_listener_serves_nobody_who_has_not_authenticated(secured_broker: KafkaBroker):
    """A metadata request that the plain listener answers ends the connection on the SASL listener."""
    assert metadata_answer(secured_broker.bootstrap_servers) != b""
    assert metadata_answer(secured_broker.sasl_bootstrap_servers) == b""


def test_the_tls_listener_is_signed_by_the_brokers_own_authority(secured_broker: KafkaBroker):
    """A client that trusts only the public authorities does not connect; one that trusts `ca_file` does, host name checked."""
    address = ("127.0.0.1", int(secured_broker.tls_bootstrap_servers.rpartition(":")[2]))
    with socket.create_connection(address, TIMEOUT_S) as raw, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(raw, server_hostname="127.0.0.1")
    trusting = ssl.create_default_context(cafile=str(secured_broker.ca_file))
    with socket.create_connection(address, TIMEOUT_S) as raw, trusting.wrap_socket(raw, server_hostname="127.0.0.1") as encrypted:
        assert encrypted.version() == "TLSv1.3"


def test_a_broker_without_security_names_the_way_to_have_it(tmp_path: Path):
    """Asking a plain broker for its TLS address fails at once, not in the client."""
    with pytest.raises(ValueError, match="security=True"):
        _ = KafkaBroker(tmp_path).tls_bootstrap_servers


def test_a_broker_refuses_a_port_that_is_taken(tmp_path: Path):
    """A stranger that answers on the port is not mistaken for the broker."""
    with socket.create_server(("127.0.0.1", 0)) as stranger, pytest.raises(BrokerFailedError, match="somebody else listens"):
        KafkaBroker(tmp_path, port=stranger.getsockname()[1]).start()


def test_a_broker_that_cannot_start_shows_its_log(private_broker: PrivateBrokers):
    """The error ends with the reason that the broker itself gave."""
    with pytest.raises(BrokerFailedError, match=r"num\.network\.threads"):
        private_broker(settings={"num.network.threads": "none"})


OWNER = """
import sys, time
from pathlib import Path
from compose.kafka.broker import KafkaBroker
broker = KafkaBroker(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


def test_a_broker_dies_with_the_process_that_started_it(tmp_path: Path):
    """SIGKILL of the owner, which can clean up nothing, leaves no broker behind."""
    require_kafka()
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    broker_pid = int(owner.stdout.readline())
    with os.fdopen(os.pidfd_open(broker_pid)) as broker:
        owner.kill()
        owner.communicate()
        ended, _, _ = select.select([broker], [], [], TIMEOUT_S)
        assert ended
