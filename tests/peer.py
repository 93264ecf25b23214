"""A program of somebody else's: publishes requests and reads answers with a Kafka client alone, by the wire contract's letter.

Nothing of the project is imported here, so that a mistake in its own codec or reader's rule can't hide itself.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def line(custom_id: str, *, url: str = COMPLETIONS, model: str = "tiny", **body: Any) -> dict[str, Any]:
    """One line of a Batch file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": model, "stream": True, **body}}


@dataclass
class Stream:
    """What a reader has of one request."""

    attempt: int | None = None
    epoch: int = -1
    seq: int = 0
    begins: int = 0
    chunks: list[dict[str, Any]] = field(default_factory=list)
    terminal: tuple[str, dict[str, Any]] | None = None
    terminals_seen: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def accept(self, offset: int, headers: dict[str, str], value: dict[str, Any]) -> None:
        """The reader's rule."""
        kind = headers["event"]
        if kind in {"end", "error"}:
            self.terminals_seen += 1
        if kind == "begin":
            self.begins += 1
        if self.terminal is not None:
            return
        if kind == "begin":
            if int(headers["epoch"]) < self.epoch:
                return
            self.epoch, self.attempt = int(headers["epoch"]), offset
            if headers["resume"] == "false" and self.seq:
                self.seq, self.chunks = 0, []
        elif "attempt" not in headers:
            if kind == "error" and self.attempt is None:
                self._close(kind, headers, value)
        elif int(headers["attempt"]) == self.attempt:
            if kind == "reset":
                self.seq, self.chunks = 0, []
            elif int(headers["seq"]) == self.seq:
                self.seq += 1
                if kind == "chunk":
                    self.chunks.append(value)
                else:
                    self._close(kind, headers, value)

    def _close(self, kind: str, headers: dict[str, str], value: dict[str, Any]) -> None:
        self.terminal, self.headers = (kind, value), headers

    @property
    def token_ids(self) -> list[int]:
        """The accepted tokens."""
        return [token for chunk in self.chunks for token in chunk["token_ids"]]

    @property
    def text(self) -> str:
        """The accepted text."""
        return "".join(piece(chunk) for chunk in self.chunks)

    @property
    def kind(self) -> str | None:
        """`end` or `error`, once closed."""
        return self.terminal[0] if self.terminal else None

    @property
    def code(self) -> str:
        """The error's code."""
        assert self.terminal is not None, "still open"
        assert self.terminal[0] == "error", f"closed with {self.terminal}"
        return str(self.terminal[1]["error"]["code"])

    @property
    def end(self) -> dict[str, Any]:
        """The end event's value."""
        assert self.terminal is not None, "still open"
        assert self.terminal[0] == "end", f"closed with {self.terminal}"
        return self.terminal[1]

    @property
    def finish_reason(self) -> str:
        """Why the first choice ended."""
        return str(self.end["choices"][0]["finish_reason"])


def piece(chunk: dict[str, Any]) -> str:
    """The text of one chunk object."""
    choice = chunk["choices"][0]
    return str(choice["delta"].get("content") or "" if "delta" in choice else choice["text"])


class Peer:
    """A producer, and a reader of every reply topic from the moment of its making."""

    def __init__(self, bootstrap_servers: str, prefix: str, *, more_topics: tuple[str, ...] = ()):
        self.bootstrap_servers = bootstrap_servers
        self.prefix = prefix
        self._producer = KafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", max_request_size=16 * 2**20)
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers, max_partition_fetch_bytes=32 * 2**20)
        topics = [f"{prefix}.{name}" for name in ("chunks", "results", "dlq")] + list(more_topics)
        partitions = [TopicPartition(topic, number) for topic in topics for number in self._consumer.partitions_for_topic(topic) or ()]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            self._consumer.position(partition)
        self.streams: dict[str, Stream] = {}
        self.results: dict[str, list[dict[str, Any]]] = {}
        self.dead_letters: list[tuple[bytes | None, bytes | None, dict[str, str]]] = []
        self.places: dict[str, set[tuple[str, int]]] = {}

    def publish(
        self, value: dict[str, Any] | bytes | None, *, key: str | None = None, headers: dict[str, str] | None = None, topic: str | None = None
    ) -> tuple[int, int]:
        """Publishes one record and returns its partition and offset."""
        payload = json.dumps(value).encode() if isinstance(value, dict) else value
        name = key or (str(value["custom_id"]) if isinstance(value, dict) and "custom_id" in value else None)
        future = self._producer.send(
            topic or f"{self.prefix}.requests",
            key=name.encode() if name is not None else None,
            value=payload,
            headers=[(header, text.encode()) for header, text in (headers or {}).items()],
        )
        where = future.get(timeout=30)
        return where.partition, where.offset

    def publish_all(self, lines: list[dict[str, Any]]) -> None:
        """Publishes many lines without waiting for each."""
        for value in lines:
            self._producer.send(f"{self.prefix}.requests", key=value["custom_id"].encode(), value=json.dumps(value).encode())
        self._producer.flush(timeout=30)

    def send(self, payload: bytes | None, *, key: str, headers: dict[str, str] | None = None, topic: str | None = None) -> None:
        """Publishes a record without waiting; `flush` waits for all."""
        pairs = [(header, text.encode()) for header, text in (headers or {}).items()]
        self._producer.send(topic or f"{self.prefix}.requests", key=key.encode(), value=payload, headers=pairs)

    def flush(self) -> None:
        """Waits until everything that was sent is in the log."""
        self._producer.flush(timeout=60)

    def cancel(self, custom_id: str) -> None:
        """Publishes a cancel."""
        self.publish({"type": "cancel", "custom_id": custom_id}, key=custom_id, topic=f"{self.prefix}.control")

    def poll(self, timeout_s: float = 0.2) -> None:
        """Takes in what has arrived."""
        for records in self._consumer.poll(timeout_ms=int(timeout_s * 1000)).values():
            for record in records:
                self._take(record)

    def wait(self, *names: str, timeout_s: float = 60.0) -> list[Stream]:
        """Waits until these streams are closed."""
        self.wait_until(lambda: all(name in self.streams and self.streams[name].terminal for name in names), timeout_s, f"streams {names}")
        return [self.streams[name] for name in names]

    def wait_result(self, name: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """Waits for the batch-output line of that name."""
        self.wait_until(lambda: name in self.results, timeout_s, f"result {name}")
        return self.results[name][0]

    def wait_until(self, condition: Any, timeout_s: float, what: str) -> None:
        """Reads until the condition holds."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"nothing came within {timeout_s} s: {what[:300]}"
            self.poll()

    def lag(self, group_id: str) -> int:
        """How many request records the group has not committed."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            committed = {partition: at.offset for partition, at in admin.list_group_offsets(group_id)[group_id].items()}
        finally:
            admin.close()
        topic = f"{self.prefix}.requests"
        ends = self._consumer.end_offsets([TopicPartition(topic, number) for number in self._consumer.partitions_for_topic(topic) or ()])
        return sum(end - committed.get(partition, 0) for partition, end in ends.items())

    def wait_no_lag(self, group_id: str, timeout_s: float = 15.0) -> None:
        """Waits until everything is committed."""
        self.wait_until(lambda: self.lag(group_id) == 0, timeout_s, f"no lag of {group_id}")

    def close(self) -> None:
        """Lets go."""
        self._producer.close(timeout=5)
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _take(self, record: Any) -> None:
        headers = {name: value.decode() for name, value in record.headers}
        if record.topic == f"{self.prefix}.dlq":
            self.dead_letters.append((record.key, record.value, headers))
            return
        name = record.key.decode()
        value = json.loads(record.value)
        self.places.setdefault(name, set()).add((record.topic, record.partition))
        if "event" in headers:
            self.streams.setdefault(name, Stream()).accept(record.offset, headers, value)
        else:
            self.results.setdefault(name, []).append(value | {"headers": headers})
