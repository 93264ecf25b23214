"""Topics of a real broker that change, go away, or hold what the library chokes on."""

import kafka
import pytest
from kafka import admin as kafka_admin

from pipeline.settings import KafkaSettings
from pipeline.transport import topics
from pipeline.transport.base import Acknowledged, Partition, ProducerFatal, RecordRejected, TopicSpec, UnknownTopic
from pipeline.transport.kafka import KafkaTransport
from schemas.record import Encoded
from tests.broker import KafkaBroker
from tests.transport.actors import PATIENCE_S, until
from tests.transport.conftest import send
from tests.transport.connecting import numbered, read_all, shared

__all__ = ["shared"]

pytestmark = pytest.mark.integration


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
