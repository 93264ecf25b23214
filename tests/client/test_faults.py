"""The client when the log misbehaves: a fatal producer, a silent one, a reader that breaks."""

import asyncio
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.client import AsyncClient, Client
from pipeline.client.submission import Submission
from pipeline.client.transcript import Transcript
from pipeline.settings import Settings
from pipeline.transport.base import BrokerUnavailable, Consumer, Partition, Producer, ProducerFatal, Transport
from tests.client.conftest import Work
from tests.scripted_worker import echo, wait_for_cancel
from tests.waiting import wait_for

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "go"}]}


class Faulty:
    """The same log, with faults put in by replacing one method of its producers or readers."""

    def __init__(self, transport: Transport):
        self._transport = transport
        self.producers: list[Producer] = []
        self.spoil_producer: Callable[[Any], None] = lambda _: None
        self.spoil_reader: Callable[[Any], None] = lambda _: None

    def producer(self) -> Producer:
        """A producer, spoilt."""
        producer = self._transport.producer()
        self.producers.append(producer)
        self.spoil_producer(producer)
        return producer

    def reader(self, partitions: frozenset[Partition]) -> Consumer:
        """A reader, spoilt."""
        reader = self._transport.reader(partitions)
        self.spoil_reader(reader)
        return reader

    def __getattr__(self, name: str) -> Any:
        """Everything else as it is."""
        return getattr(self._transport, name)


@pytest.fixture
def faulty(transport: Transport) -> Faulty:
    """A log to spoil."""
    return Faulty(transport)


@pytest.fixture
def client(settings: Settings, faulty: Faulty) -> Iterator[Client]:
    """A client of it that waits half a second for the log."""
    with Client(settings, faulty, timeout_s=0.5) as client:
        yield client


def fatal(*_: object) -> None:
    """Refuses for good."""
    raise ProducerFatal("fenced")


def test_a_fatal_producer_is_replaced(client: Client, faulty: Faulty, work: Work):
    """The first producer can send nothing; the request goes out through a second one, unnoticed."""
    work(echo)
    faulty.spoil_producer = lambda producer: setattr(producer, "send", fatal) if len(faulty.producers) == 1 else None
    assert client.submit(BODY).result(10.0).text == "go"
    assert len(faulty.producers) == 2


def test_a_producer_that_stays_fatal_is_an_error(client: Client, faulty: Faulty):
    """Where the second producer is no better the caller hears of it, and the name is free again."""
    faulty.spoil_producer = lambda producer: setattr(producer, "send", fatal)
    for _ in range(2):
        with pytest.raises(ProducerFatal):
            client.submit(BODY, custom_id="same")


def test_an_unacknowledged_request_is_given_up(client: Client, faulty: Faulty):
    """Without an acknowledgement in time `submit` raises, and the name is free again."""
    faulty.spoil_producer = lambda producer: setattr(producer, "send", lambda *_: None)
    for _ in range(2):
        with pytest.raises(BrokerUnavailable, match="no answer from the log"):
            client.submit(BODY, custom_id="same")


def test_a_failed_acknowledgement_is_raised(client: Client, faulty: Faulty):
    """What the log answers instead of an offset is what `submit` raises."""
    faulty.spoil_producer = lambda producer: setattr(producer, "send", lambda _, __, on_ack: on_ack(BrokerUnavailable("gave up")))
    with pytest.raises(BrokerUnavailable, match="gave up"):
        client.submit(BODY)


def test_a_broken_reader_fails_what_is_open_and_is_replaced(client: Client, faulty: Faulty, work: Work):
    """Nobody is left waiting when the reader thread dies, and the next request starts another."""

    def breaks(reader: Any) -> None:
        until_s = time.monotonic() + 0.3
        poll = reader.poll
        reader.poll = lambda *a: poll(*a) if time.monotonic() < until_s else [SimpleNamespace()]

    faulty.spoil_reader = breaks
    handle = client.submit(BODY)
    with pytest.raises(BrokerUnavailable, match="reader of replies failed"):
        handle.result(10.0)
    faulty.spoil_reader = lambda _: None
    work(echo)
    assert client.submit(BODY).result(10.0).text == "go"


def test_a_request_that_meets_a_dead_reader_is_not_sent(client: Client):
    """Where the reader died between connecting and sending, the request is refused rather than never answered."""
    submission = Submission.of(BODY, {"custom_id": "same"})
    for _ in range(2):
        client._connection.slots.take()
        with pytest.raises(BrokerUnavailable, match="submit again"):
            client._connection.post(submission, Transcript("same"))


def test_closing_does_not_wait_for_a_log_that_is_away(settings: Settings, faulty: Faulty, monkeypatch: pytest.MonkeyPatch):
    """A client that still looks for its log closes at the next turn, not after its whole timeout."""

    def away(timeout_s: float) -> str:
        raise BrokerUnavailable(f"nobody within {timeout_s} s")

    monkeypatch.setattr(faulty, "ping", away, raising=False)
    client = Client(settings, faulty, timeout_s=3_600.0)
    connected = client._connection.connect()
    client.close()
    with pytest.raises(BrokerUnavailable):
        connected.result(0.0)


def test_an_interrupted_submit_cancels_what_may_be_out(settings: Settings, faulty: Faulty, work: Work):
    """Whoever is interrupted while the log is about to acknowledge wants no answer any more: the worker is told."""
    worker = work(wait_for_cancel)

    def acknowledge_nothing_but_cancels(producer: Any) -> None:
        send = producer.send
        producer.send = lambda where, record, on_ack: send(where, record, on_ack if where.topic == settings.topics.control else lambda _: None)

    async def interrupt() -> None:
        async with AsyncClient(settings, faulty, timeout_s=10.0) as client:
            submitting = asyncio.create_task(client.submit(BODY, custom_id="mine"))
            await asyncio.to_thread(wait_for, lambda: bool(worker.taken))
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting

    faulty.spoil_producer = acknowledge_nothing_but_cancels
    asyncio.run(interrupt())
    wait_for(lambda: worker.cancelled == {"mine"})
