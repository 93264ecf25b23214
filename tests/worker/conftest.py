"""A whole worker in one thread: the real loop on the embedded log, with the engine that ships for tests."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.delivery.fence import Fence
from pipeline.engine.fake import FakeEngine
from pipeline.loop import Loop
from pipeline.offline.flight.lobby import Lobby
from pipeline.scheduling.transit import Transit
from pipeline.settings import Settings, load
from pipeline.telemetry import Metrics
from pipeline.transport import topics
from pipeline.transport.base import Acknowledged, Partition, Record, Transport
from pipeline.transport.opening import open_transport
from schemas.codec import decode_event
from schemas.events import Chunk, End, Error, Event
from schemas.record import Encoded
from workers.wiring import build_loop


class Bench:
    """A worker that runs when told to, and a reader of everything it says."""

    def __init__(self, settings: Settings, engine: FakeEngine):
        self.settings = settings
        self.engine = engine
        self.transport: Transport = open_transport(settings)
        topics.apply(self.transport, topics.contract(settings.kafka))
        self.producer = self.transport.producer()
        self.metrics = Metrics()
        self.lobby = Lobby(settings.bulk.exchanges)
        self.loop: Loop = build_loop(settings, self.transport, {engine.info.name: engine}, self.metrics, self.lobby, Transit())
        names = (settings.topics.chunks, settings.topics.results, settings.topics.dlq)
        partitions = frozenset(Partition(name, number) for name in names for number in range(self.producer.partitions(name)))
        self.reader = self.transport.reader(partitions)
        self.records: list[Record] = []
        self._heard: dict[bytes | None, list[tuple[int, Event]]] = {}
        self._sorted = 0

    def publish(
        self,
        custom_id: str,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        url: str = "/v1/completions",
        raw: bytes | None = None,
        **body: Any,
    ) -> None:
        """Publishes a streamed request and waits for its acknowledgement."""
        value = {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "fake", "stream": True, **body}}
        self.publish_value(raw if raw is not None else json.dumps(value).encode(), key or custom_id, headers)

    def publish_value(self, value: bytes | None, key: str, headers: dict[str, str] | None = None, topic: str | None = None) -> None:
        """Publishes any value."""
        landed: list[Acknowledged] = []
        where = self.producer.partition_for(topic or self.settings.topics.requests, key.encode())
        pairs = tuple((name, text.encode()) for name, text in (headers or {}).items())
        self.producer.send(where, Encoded(key=key.encode(), value=value, headers=pairs), landed.append)
        self.producer.flush(5.0)
        assert isinstance(landed[0], Acknowledged)

    def cancel(self, custom_id: str) -> None:
        """Publishes a cancel."""
        self.publish_value(json.dumps({"type": "cancel", "custom_id": custom_id}).encode(), custom_id, topic=self.settings.topics.control)

    def run_until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Steps the worker until the condition holds."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"not within {timeout_s} s; heard: {[(r.key, r.headers[:3]) for r in self.records[-10:]]}"
            self.loop.step(time.monotonic())
            self.records.extend(self.reader.poll(0.0, 1_000))

    def run_until_closed(self, *names: str) -> None:
        """Steps the worker until these streams have their last word."""
        self.run_until(lambda: all(self.closing(name) for name in names))

    def events(self, custom_id: str) -> list[tuple[int, Event]]:
        """Every stream event of a request, accepted or not, with its offset."""
        for r in self.records[self._sorted :]:  # each is looked at once: tests ask after every step
            if r.partition.topic == self.settings.topics.chunks:
                self._heard.setdefault(r.key, []).append((r.offset, decode_event(r.key, r.value, r.headers).event))
        self._sorted = len(self.records)
        return list(self._heard.get(custom_id.encode(), ()))

    def accepted(self, custom_id: str) -> list[Event]:
        """What a reader has after the whole log: what was voided is gone."""
        fence, kept = Fence(), []
        for offset, event in self.events(custom_id):
            before = fence.next_seq
            if fence.admits(event, offset):
                if fence.next_seq < max(before, 1):
                    kept = []
                if isinstance(event, Chunk | End | Error):
                    kept.append(event)
        return kept

    def tokens(self, custom_id: str) -> list[int]:
        """The accepted tokens."""
        return [token for event in self.accepted(custom_id) if isinstance(event, Chunk) for token in event.token_ids]

    def closing(self, custom_id: str) -> End | Error | None:
        """The accepted last word."""
        last = (self.accepted(custom_id) or [None])[-1]
        return last if isinstance(last, End | Error) else None

    def results(self) -> dict[str, dict[str, Any]]:
        """The batch-output lines by name."""
        return {r.key.decode(): json.loads(r.value) for r in self.records if r.partition.topic == self.settings.topics.results and r.key and r.value}

    def dead_letters(self) -> list[Record]:
        """The dead letters."""
        return [r for r in self.records if r.partition.topic == self.settings.topics.dlq]

    def lag(self) -> int:
        """Request records that are not committed."""
        return sum(lag.end - (lag.committed or 0) for lag in self.transport.lag(self.settings.kafka.group_id, [self.settings.topics.requests]))

    def close(self) -> None:
        """Takes everything down."""
        self.loop.close()
        self.reader.close(1.0)
        self.producer.close(1.0)
        self.transport.close()


@pytest.fixture
def bench(tmp_path) -> Iterator[Callable[..., Bench]]:
    """Makes benches; settings come nested, as in a file."""
    made: list[Bench] = []

    def make(engine: FakeEngine | None = None, **settings: Any) -> Bench:
        own = {"transport": "embedded", "data_dir": tmp_path, "kafka": {"partitions": 2, "session_timeout_ms": 3000}}
        made.append(Bench(load(own | settings), engine or FakeEngine()))
        return made[-1]

    yield make
    for one in made:
        one.close()
