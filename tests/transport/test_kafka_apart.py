"""What is particular to a producer in a process of its own: how that process lives and ends."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from pipeline.delivery.outbox import Channel, Outbox
from pipeline.logs import configure_logging
from pipeline.settings import KafkaSettings, LogFormat, LogSettings
from pipeline.transport.base import Acknowledged, BrokerUnavailable, Partition, ProducerFatal, TopicSpec, TransportError
from pipeline.transport.kafka import KafkaTransport
from pipeline.transport.kafka.apart import ApartProducer
from schemas.record import Encoded
from tests.broker import ExternalBroker, KafkaBroker, PrivateBrokers
from tests.transport.actors import PATIENCE_S, Member, until
from tests.transport.conftest import send
from tests.transport.connecting import NOBODY

pytestmark = pytest.mark.integration

Broker = KafkaBroker | ExternalBroker


@contextmanager
def connected(broker: Broker) -> Iterator[KafkaTransport]:
    """A transport whose producers have processes of their own."""
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=broker.bootstrap_servers), revoke_budget_s=2.0, producers_apart=True)
    try:
        yield transport
    finally:
        transport.close()


@pytest.fixture
def topic(kafka_broker: Broker, topic_prefix: str) -> Partition:
    """The only partition of a topic."""
    name = f"{topic_prefix}.apart"
    with connected(kafka_broker) as transport:
        transport.create([TopicSpec(name=name, partitions=1)])
    return Partition(name, 0)


def numbered(count: int) -> list[Encoded]:
    """Records that tell their place."""
    return [Encoded(key=None, value=b"%d" % n) for n in range(count)]


def children() -> set[int]:
    """The processes that this one has started and not yet taken leave of."""
    return {int(pid) for tasks in Path("/proc/self/task").iterdir() for pid in (tasks / "children").read_text().split()}


def test_a_killed_process_fails_what_is_open_and_its_producer(kafka_broker: Broker, topic: Partition):
    """Nobody waits for ever: what was not acknowledged hears of it, and the producer takes nothing more."""
    with connected(kafka_broker) as transport:
        producer = transport.producer()
        assert isinstance(producer, ApartProducer)
        send(producer, [(topic, numbered(1)[0])])
        os.kill(producer.pid, signal.SIGSTOP)
        outcomes: list[Acknowledged | TransportError] = []
        for record in numbered(50):
            producer.send(topic, record, outcomes.append)
        os.kill(producer.pid, signal.SIGKILL)
        producer.flush(PATIENCE_S)
        assert [type(outcome) for outcome in outcomes] == [ProducerFatal] * 50
        with pytest.raises(ProducerFatal):
            producer.send(topic, numbered(1)[0], outcomes.append)
        producer.close(1.0)
        assert producer.pid not in children()


def test_the_outbox_replaces_a_killed_process_and_sends_again(kafka_broker: Broker, topic: Partition):
    """Every record lands, in order; what landed before the kill without anybody hearing of it may be there twice."""
    with connected(kafka_broker) as transport:
        outbox = Outbox(transport.producer)
        outbox.start()
        first = outbox.producer
        assert isinstance(first, ApartProducer)
        channel, landed = Channel(on_refused=lambda error: pytest.fail(str(error))), []
        for n, record in enumerate(numbered(200)):
            outbox.post(channel, topic, record, on_landed=landed.append)
            if n == 100:
                os.kill(first.pid, signal.SIGKILL)
        deadline_s = time.monotonic() + PATIENCE_S
        while not channel.is_empty() and time.monotonic() < deadline_s:
            outbox.settle(time.monotonic(), 0.01)
        assert len(landed) == 200
        assert landed == sorted(landed)
        assert outbox.producer is not first
        outbox.close(5.0)
        with transport.reader(frozenset({topic})) as reader:
            reader.seek(topic, 0)
            member = Member(reader)
            until(lambda: member.records and member.records[-1].value == b"199", member)
        assert list(dict.fromkeys(int(r.value or b"") for r in member.records)) == list(range(200))


def test_signals_to_the_whole_group_do_not_end_it(kafka_broker: Broker, topic: Partition):
    """A terminal's interrupt and a service manager's TERM reach every process; the worker still has to say what it has to say."""
    with connected(kafka_broker) as transport, transport.producer() as producer:
        assert isinstance(producer, ApartProducer)
        os.kill(producer.pid, signal.SIGINT)
        os.kill(producer.pid, signal.SIGTERM)
        assert send(producer, [(topic, record) for record in numbered(10)])[-1] == Acknowledged(topic, 9)


ORPHAN = """
import os, signal, sys
from pipeline.settings import KafkaSettings
from pipeline.transport.base import Partition
from pipeline.transport.kafka import KafkaTransport
from schemas.record import Encoded
servers, topic = sys.argv[1:]
transport = KafkaTransport(KafkaSettings(bootstrap_servers=servers), revoke_budget_s=2.0, producers_apart=True)
producer = transport.producer()
print(producer.pid, flush=True)
for n in range(100):
    producer.send(Partition(topic, 0), Encoded(key=None, value=b"%d" % n), lambda _: None)
sys.stdin.read()
"""


def test_it_ends_when_its_worker_is_killed(kafka_broker: Broker, topic: Partition):
    """What the worker had handed over is still sent, and no process is left behind."""
    program = [sys.executable, "-c", ORPHAN, kafka_broker.bootstrap_servers, topic.topic]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        with connected(kafka_broker) as transport, transport.reader(frozenset({topic})) as reader:
            reader.seek(topic, 0)
            member = Member(reader)
            until(lambda: member.records, member)
            worker.kill()
            until(lambda: len(member.records) == 100, member)
        until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


def test_without_a_broker_it_says_so_and_leaves_no_process():
    """The reason comes from the process, word for word."""
    before = children()
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=NOBODY), revoke_budget_s=2.0, connect_timeout_s=0.5, producers_apart=True)
    with pytest.raises(BrokerUnavailable, match=rf"(?s){NOBODY}.*kafka\.bootstrap_servers"):
        transport.producer()
    transport.close()
    assert children() == before


@contextmanager
def logging_as_a_worker(beside: logging.Handler) -> Iterator[None]:
    """Sets logging up as a worker does, and lets a handler see the records too."""
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    configure_logging(LogSettings(format=LogFormat.JSON))
    root.addHandler(beside)
    try:
        yield
    finally:
        root.handlers = handlers
        structlog.reset_defaults()


def test_under_an_outage_the_workers_log_has_what_the_library_says_there(
    private_broker: PrivateBrokers, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    """Its warnings come over the line, as lines of the worker's own form; the process itself writes nothing."""
    broker = private_broker()
    with logging_as_a_worker(caplog.handler), connected(broker) as transport:
        transport.create([TopicSpec(name="topic", partitions=1)])
        producer = transport.producer()
        assert isinstance(producer, ApartProducer)
        send(producer, [(Partition("topic", 0), numbered(1)[0])])

        def forwarded() -> list[str]:
            return [r.getMessage() for r in caplog.records if r.name.startswith("kafka.") and r.threadName == "kafka-apart-reader"]

        assert forwarded() == []
        broker.kill()
        outcomes: list[Acknowledged | TransportError] = []
        producer.send(Partition("topic", 0), numbered(1)[0], outcomes.append)
        deadline_s = time.monotonic() + PATIENCE_S
        while not forwarded() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        producer.close(0.1)
    said = forwarded()
    assert said
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert set(said) <= {line["event"] for line in lines if line["level"] in {"warning", "error"}}
    assert [type(outcome) for outcome in outcomes] == [BrokerUnavailable]
