"""Consumers that record what happens to them, in this process and in others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pipeline.settings import KafkaSettings
from pipeline.transport.base import Change, ChangeKind, Committed, Consumer, NotOwner, Partition, Record, Transport
from pipeline.transport.embedded import EmbeddedTransport
from pipeline.transport.kafka import KafkaTransport

PATIENCE_S = 60.0  # for what happens in a second on an idle machine


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to open a log from any process. One of `path` and `servers` is set."""

    path: str | None
    servers: str | None
    session_timeout_s: float
    revoke_budget_s: float
    producers_apart: bool = False

    def open(self) -> Transport:
        """Opens it."""
        if self.path is not None:
            return EmbeddedTransport(Path(self.path), session_timeout_s=self.session_timeout_s, revoke_budget_s=self.revoke_budget_s)
        settings = KafkaSettings(bootstrap_servers=self.servers or "", session_timeout_ms=int(self.session_timeout_s * 1_000))
        return KafkaTransport(settings, revoke_budget_s=self.revoke_budget_s, producers_apart=self.producers_apart)


@dataclass
class Member:
    """A consumer and what it went through."""

    consumer: Consumer
    resumes: bool = True
    releases: bool = True
    records: list[Record] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def turn(self, timeout_s: float = 0.01, max_records: int = 100) -> None:
        """One poll, and an answer to what it brought."""
        self.records += self.consumer.poll(timeout_s, max_records)
        for change in self.consumer.changes():
            self.changes.append(change)
            if change.kind is ChangeKind.ASSIGNED and self.resumes:
                self.consumer.resume(change.partitions)
            if change.kind is ChangeKind.REVOKED and self.releases:
                self.consumer.release(change.partitions, {p: Committed(self.consumer.position(p)) for p in change.partitions})

    def seen(self, kind: ChangeKind) -> set[Partition]:
        """The partitions of all changes of a kind."""
        return {partition for change in self.changes if change.kind is kind for partition in change.partitions}

    def offsets(self, partition: Partition) -> list[int]:
        """What was delivered of a partition, in the order of delivery."""
        return [record.offset for record in self.records if record.partition == partition]

    @property
    def owned(self) -> frozenset[Partition]:
        """What it owns now."""
        return self.consumer.assignment()


def until(condition: Callable[[], object], *members: Member, timeout_s: float = PATIENCE_S) -> None:
    """Lets members take turns until the condition holds; fails when it takes too long."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, [(m.owned, m.changes, len(m.records)) for m in members]
        for member in members:
            member.turn()
        if not members:
            time.sleep(0.01)


def turns(count: int, *members: Member) -> None:
    """Lets members take a number of turns, to show what does *not* happen meanwhile."""
    for _ in range(count):
        for member in members:
            member.turn()


class Words:
    """JSON lines from a pipe, without waiting for any."""

    def __init__(self, descriptor: int):
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """The lines that have come since the last call."""
        try:
            while more := os.read(self._descriptor, 65_536):
                self._rest += more
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]


class OtherProcess:
    """A member of a group in a process of its own, to stop and to kill. Resumes and releases by itself."""

    def __init__(self, recipe: Recipe, group_id: str, topics: Sequence[str]):
        task = json.dumps({"recipe": asdict(recipe), "group_id": group_id, "topics": list(topics)})
        self._process = subprocess.Popen(
            [sys.executable, __file__, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._words = self._process.stdin, Words(self._process.stdout.fileno())
        self.told: list[dict[str, Any]] = []

    def owns(self) -> set[Partition]:
        """What it owned when it last spoke."""
        owned: set[Partition] = set()
        for word in self.listen():
            if "owned" in word:
                owned = {Partition(*p) for p in word["owned"]}
        return owned

    def changes(self, kind: ChangeKind) -> set[Partition]:
        """The partitions of all changes of a kind that it spoke of."""
        return {Partition(*p) for word in self.listen() if word.get("change") == kind.name for p in word["partitions"]}

    def commit(self, partition: Partition, offset: int, *, freezes: bool = False) -> None:
        """Asks it to commit, which it answers with a word, and to stop itself right before if it is to freeze."""
        self._say({"commit": [*partition], "offset": offset, "freezes": freezes})

    def listen(self) -> list[dict[str, Any]]:
        """Everything that it has said so far."""
        self.told += self._words.read()
        return self.told

    def is_frozen(self) -> bool:
        """Tells whether it is stopped."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def stop(self) -> None:
        """Stops it, as a hypervisor or a debugger would."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kills it without a word."""
        self._process.kill()
        self._process.wait()

    def _say(self, word: dict[str, Any]) -> None:
        self._stdin.write(json.dumps(word).encode() + b"\n")
        self._stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _be_a_member(task: dict[str, Any]) -> None:
    """What the other process does: turns, words about them, and commits when asked."""
    transport, asked = Recipe(**task["recipe"]).open(), Words(sys.stdin.fileno())
    with transport.consumer(task["group_id"], task["topics"]) as consumer:
        member = Member(consumer)
        told, owned = 0, None
        while True:
            member.turn()
            for change in member.changes[told:]:
                _tell({"change": change.kind.name, "partitions": sorted(change.partitions)})
            told = len(member.changes)
            if owned != member.owned:
                owned = member.owned
                _tell({"owned": sorted(owned)})
            for word in asked.read():
                if word["freezes"]:
                    os.kill(os.getpid(), signal.SIGSTOP)
                try:
                    consumer.commit({Partition(*word["commit"]): Committed(word["offset"])}, timeout_s=5.0)
                    _tell({"commit": "done"})
                except NotOwner:
                    _tell({"commit": "NotOwner"})


def _tell(word: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _be_a_member(json.loads(sys.argv[1]))
