"""The logs that the contract is tested on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.transport.base import Acknowledged, Consumer, Partition, Producer, TopicSpec, Transport, TransportError
from schemas.record import Encoded
from tests.transport.actors import PATIENCE_S, Member, Recipe


@dataclass
class Log:
    """A log with one topic, and what a test opened on it; everything is closed at the end."""

    recipe: Recipe
    prefix: str
    is_kafka: bool
    stack: ExitStack
    transports: list[Transport] = field(default_factory=list)

    @property
    def transport(self) -> Transport:
        """The first transport, opened when it is first asked for."""
        return self.transports[0] if self.transports else self.open()

    def open(self) -> Transport:
        """Opens the log once more, as another program would."""
        transport = self.recipe.open()
        self.transports.append(transport)
        self.stack.callback(transport.close)
        return transport

    def topic(self, partitions: int = 1, name: str = "topic", **config: str) -> str:
        """Creates a topic and returns its full name."""
        full = f"{self.prefix}.{name}"
        settings = {"message.timestamp.type": "LogAppendTime", **{key.replace("_", "."): value for key, value in config.items()}}
        self.transport.create([TopicSpec(name=full, partitions=partitions, config=settings)])
        return full

    def producer(self) -> Producer:
        """A producer."""
        return self.stack.enter_context(self.transport.producer())

    def consumer(self, topic: str, group: str = "group") -> Consumer:
        """A member of a group; groups are the test's own too."""
        return self.stack.enter_context(self.transport.consumer(self.group(group), [topic]))

    def member(self, topic: str, group: str = "group", *, resumes: bool = True, releases: bool = True) -> Member:
        """A member that records what happens to it."""
        return Member(self.consumer(topic, group), resumes=resumes, releases=releases)

    def reader(self, *partitions: Partition) -> Consumer:
        """A reader without a group."""
        return self.stack.enter_context(self.transport.reader(frozenset(partitions)))

    def group(self, name: str = "group") -> str:
        """The full name of a group."""
        return f"{self.prefix}.{name}"

    def fill(self, topic: str, count: int, partition: int = 0) -> list[Acknowledged]:
        """Produces numbered records to a partition and waits for their acknowledgements."""
        return send(self.producer(), [(Partition(topic, partition), Encoded(key=None, value=b"%d" % n)) for n in range(count)])


def send(producer: Producer, records: list[tuple[Partition, Encoded]]) -> list[Acknowledged]:
    """Produces records and returns their acknowledgements, in order of arrival; fails when one failed."""
    outcomes: list[Acknowledged | TransportError] = []
    for partition, record in records:
        producer.send(partition, record, outcomes.append)
    producer.flush(PATIENCE_S)
    acknowledged = [outcome for outcome in outcomes if isinstance(outcome, Acknowledged)]
    assert len(acknowledged) == len(records), outcomes
    return acknowledged


def recipe_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    """How to open a log of a kind: `embedded`, `kafka`, or `kafka-apart`, whose producers have processes of their own."""
    if kind == "embedded":
        return Recipe(path=str(tmp_path / "data" / "log.sqlite"), servers=None, session_timeout_s=1.5, revoke_budget_s=0.5)
    servers = request.getfixturevalue("kafka_broker").bootstrap_servers
    # 6 s is the shortest session that a broker allows as it comes
    return Recipe(path=None, servers=servers, session_timeout_s=6.0, revoke_budget_s=2.0, producers_apart=kind == "kafka-apart")


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.integration)])
def log(request: pytest.FixtureRequest, tmp_path: Path, topic_prefix: str) -> Iterator[Log]:
    """The log that a claim is tested on: both kinds, one after the other."""
    with ExitStack() as stack:
        yield Log(recipe_of(request.param, request, tmp_path), topic_prefix, request.param != "embedded", stack)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Callable[..., Log]]:
    """Makes embedded logs only, with other times."""
    with ExitStack() as stack:

        def make(session_timeout_s: float = 1.5, revoke_budget_s: float = 0.5) -> Log:
            path = str(tmp_path / "data" / "log.sqlite")
            return Log(Recipe(path, None, session_timeout_s, revoke_budget_s), "test", is_kafka=False, stack=stack)

        yield make
