"""What every log promises to those who write to it (`pipeline/transport/base.py`)."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.transport.base import Acknowledged, Partition, ProducerFatal, RecordRejected, TopicSpec, TransportError, UnknownTopic
from schemas.record import Encoded
from tests.transport.actors import PATIENCE_S, until
from tests.transport.conftest import Log, recipe_of, send

RECORDS = [
    Encoded(key=b"key", value=b"value", headers=(("name", b"1"), ("other", b"\x00\xff"), ("name", b"2"))),
    Encoded(key=None, value=b"without a key"),
    Encoded(key=b"without a value", value=None),
    Encoded(key=b"", value=b"", headers=(("", b""), ("überschrift", "grün".encode()))),
    Encoded(key=None, value=None, headers=(("only", b"headers"),)),
    Encoded(key=b"\xff\xfe", value=bytes(range(256)) * 100),
]


@pytest.fixture(params=["embedded", *(pytest.param(kind, marks=pytest.mark.integration) for kind in ("kafka", "kafka-apart"))])
def log(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Iterator[Log]:
    """The log that a claim is tested on; Kafka with both of its producers."""
    with ExitStack() as stack:
        yield Log(recipe_of(request.param, request, tmp_path), topic_prefix, request.param != "embedded", stack)


def test_a_record_arrives_as_it_was_sent(log: Log):
    """Key, value and headers arrive byte by byte, nulls are not empty, and a repeated header keeps its places."""
    topic = log.topic()
    before_ms = time.time_ns() // 1_000_000
    send(log.producer(), [(Partition(topic, 0), record) for record in RECORDS])
    member = log.member(topic)
    until(lambda: len(member.records) == len(RECORDS), member)
    assert [Encoded(key=r.key, value=r.value, headers=r.headers) for r in member.records] == RECORDS
    after_ms = time.time_ns() // 1_000_000
    assert all(before_ms - 1_000 <= record.timestamp_ms <= after_ms + 1_000 for record in member.records)


def test_acknowledgements_tell_where_each_record_went_in_order(log: Log):
    """The offsets of a partition are acknowledged as 0, 1, 2 …, each once, and are those that readers see."""
    topic = log.topic(partitions=3)
    wanted = [(Partition(topic, n % 3), Encoded(key=None, value=b"%d" % n)) for n in range(600)]
    acknowledged = send(log.producer(), wanted)
    for number in range(3):
        assert [a.offset for a in acknowledged if a.partition == Partition(topic, number)] == list(range(200))
    member = log.member(topic)
    until(lambda: len(member.records) == 600, member)
    for number in range(3):
        mine = [r for r in member.records if r.partition.number == number]
        assert [(r.offset, r.value) for r in mine] == [(k, b"%d" % (3 * k + number)) for k in range(200)]


def test_records_of_many_threads_keep_each_threads_order(log: Log):
    """A producer may be called from any thread; acknowledgements come on none of those, in the order of the partition."""
    topic = log.topic()
    producer, partition = log.producer(), Partition(topic, 0)
    outcomes: list[Acknowledged | TransportError] = []
    callers: set[int] = set()

    def acknowledge(outcome: Acknowledged | TransportError) -> None:
        outcomes.append(outcome)
        callers.add(threading.get_ident())

    def produce(name: int) -> None:
        for n in range(200):
            producer.send(partition, Encoded(key=b"%d" % name, value=b"%d" % n), acknowledge)

    threads = [threading.Thread(target=produce, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush(PATIENCE_S)
    assert [o.offset for o in outcomes if isinstance(o, Acknowledged)] == list(range(800))
    assert len(callers) == 1
    assert callers.isdisjoint({threading.get_ident()} | {thread.ident for thread in threads})
    member = log.member(topic)
    until(lambda: len(member.records) == 800, member)
    for name in range(4):
        numbers = [int(r.value or b"") for r in member.records if r.key == b"%d" % name]
        assert numbers == list(range(200))


def test_an_acknowledgement_may_send_the_next_record(log: Log):
    """A callback may produce, so a chain of records needs no thread of its own."""
    topic = log.topic()
    producer, partition = log.producer(), Partition(topic, 0)
    offsets: list[int] = []

    def go_on(outcome: Acknowledged | TransportError) -> None:
        assert isinstance(outcome, Acknowledged)
        offsets.append(outcome.offset)
        if len(offsets) < 5:
            producer.send(partition, Encoded(key=None, value=b"next"), go_on)

    producer.send(partition, Encoded(key=None, value=b"first"), go_on)
    until(lambda: len(offsets) == 5)
    assert offsets == [0, 1, 2, 3, 4]


def test_a_callback_that_raises_hurts_nobody_else(log: Log):
    """The records after it are acknowledged all the same."""
    topic = log.topic()
    producer, partition = log.producer(), Partition(topic, 0)
    outcomes: list[Acknowledged | TransportError] = []
    producer.send(partition, Encoded(key=None, value=b"0"), lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
    producer.send(partition, Encoded(key=None, value=b"1"), outcomes.append)
    producer.flush(PATIENCE_S)
    assert outcomes == [Acknowledged(partition, 1)]


def test_unknown_topics_and_partitions_are_refused(log: Log):
    """Nothing is queued, created or waited for."""
    topic, producer = log.topic(partitions=2), log.producer()
    record = Encoded(key=None, value=b"lost")
    for partition in (Partition(topic, 2), Partition(topic, -1), Partition(f"{log.prefix}.none", 0)):
        with pytest.raises(UnknownTopic, match=partition.topic):
            producer.send(partition, record, lambda _: None)
    with pytest.raises(UnknownTopic):
        producer.partitions(f"{log.prefix}.none")
    with pytest.raises(UnknownTopic):
        producer.partition_for(f"{log.prefix}.none", b"key")
    producer.flush(PATIENCE_S)
    assert not log.transport.describe([f"{log.prefix}.none"])
    assert producer.partitions(topic) == 2


def test_a_topic_created_a_moment_ago_is_found(log: Log):
    """Also by a producer that asked for it before, in vain."""
    producer = log.producer()
    with pytest.raises(UnknownTopic):
        producer.partitions(f"{log.prefix}.late")
    topic = log.topic(partitions=5, name="late")
    assert producer.partitions(topic) == 5
    assert send(producer, [(Partition(topic, 4), Encoded(key=None, value=b"0"))]) == [Acknowledged(Partition(topic, 4), 0)]


def test_an_oversized_record_is_refused_alone(log: Log):
    """It is rejected at once, and neither those before nor those after it suffer."""
    topic = log.topic(max_message_bytes="65536")
    producer, partition = log.producer(), Partition(topic, 0)
    outcomes: list[Acknowledged | TransportError] = []
    producer.send(partition, Encoded(key=None, value=b"before"), outcomes.append)
    for record in (Encoded(key=None, value=b"x" * 70_000), Encoded(key=None, value=b"", headers=(("h", b"x" * 70_000),))):
        with pytest.raises(RecordRejected, match=r"max\.message\.bytes"):
            producer.send(partition, record, outcomes.append)
    producer.send(partition, Encoded(key=None, value=b"x" * 60_000), outcomes.append)
    producer.flush(PATIENCE_S)
    assert outcomes == [Acknowledged(partition, 0), Acknowledged(partition, 1)]


def test_a_record_of_eight_mebibytes_passes_where_the_topic_takes_it(log: Log):
    """The size of a record is the topic's business, not the client's."""
    topic = log.topic(max_message_bytes=str(16 * 1024 * 1024))
    value = b"x" * (8 * 1024 * 1024)
    send(log.producer(), [(Partition(topic, 0), Encoded(key=None, value=value))])
    member = log.member(topic)
    until(lambda: member.records, member)
    assert member.records[0].value == value


def test_a_key_belongs_to_the_partition_that_every_client_would_pick(log: Log):
    """The values are those of Kafka's own murmur2 tests, on 1,000 partitions."""
    topic, producer = log.topic(partitions=100), log.producer()
    reference = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"": 275646681, b"abc": 479470107}
    for key, hashed in reference.items():
        assert producer.partition_for(topic, key) == Partition(topic, (hashed & 0x7FFFFFFF) % 100)


def test_a_closed_producer_refuses_and_has_flushed(log: Log):
    """Closing waits for what was sent; afterwards there is only a new producer."""
    topic = log.topic()
    outcomes: list[Acknowledged | TransportError] = []
    producer = log.transport.producer()
    for n in range(300):
        producer.send(Partition(topic, 0), Encoded(key=None, value=b"%d" % n), outcomes.append)
    producer.close(PATIENCE_S)
    assert [o.offset for o in outcomes if isinstance(o, Acknowledged)] == list(range(300))
    with pytest.raises(ProducerFatal):
        producer.send(Partition(topic, 0), Encoded(key=None, value=b"late"), outcomes.append)
    producer.close(1.0)


def test_creating_a_topic_twice_leaves_it_alone(log: Log):
    """The first creation counts; its settings and partitions stay, and other topics are unknown."""
    topic = log.topic(partitions=3, max_message_bytes="70000")
    log.transport.create([TopicSpec(name=topic, partitions=7, config={"max.message.bytes": "80000"})])
    log.transport.create([])
    found = log.open().describe([topic, f"{log.prefix}.none"])
    assert list(found) == [topic]
    assert (found[topic].name, found[topic].partitions, found[topic].config["max.message.bytes"]) == (topic, 3, "70000")


def test_several_producers_share_a_partition(log: Log):
    """Every offset is given once, and each producer's records keep their order among the others'."""
    topic = log.topic()
    outcomes: list[list[Acknowledged | TransportError]] = [[], [], []]
    producers = [log.stack.enter_context(log.open().producer()) for _ in outcomes]
    for n in range(300):
        for name, producer in enumerate(producers):
            producer.send(Partition(topic, 0), Encoded(key=b"%d" % name, value=b"%d" % n), outcomes[name].append)
    for producer in producers:
        producer.flush(PATIENCE_S)
    offsets = [[o.offset for o in mine if isinstance(o, Acknowledged)] for mine in outcomes]
    assert sorted(offset for mine in offsets for offset in mine) == list(range(900))
    assert all(first < second for mine in offsets for first, second in pairwise(mine))


def test_the_log_gives_a_sign_of_life(log: Log):
    """One line for the operator."""
    assert "\n" not in log.transport.ping(PATIENCE_S)
