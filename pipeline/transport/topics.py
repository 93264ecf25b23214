"""The topics of the wire contract as they should be, and what a log lacks of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.settings import KafkaSettings
from pipeline.transport.base import TopicSpec, TopicState, Transport
from schemas.topics import Topics

_DAY_MS = 24 * 3_600_000
_MIB = 1024 * 1024

# What strangers write to. Queue age and lookups by time need one clock, not every producer's; and a producer's compressed
# batch is expanded where its size is limited, so that a few bytes can't become gigabytes in a worker.
_FROM_OUTSIDE = {"message.timestamp.type": "LogAppendTime", "compression.type": "uncompressed"}


@dataclass(frozen=True, slots=True)
class Difference:
    """An existing topic that is not as it should be."""

    topic: str
    setting: str
    actual: str
    wanted: str

    def __str__(self) -> str:
        """One line for the operator."""
        return f"{self.topic}: {self.setting} is {self.actual}, should be {self.wanted}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What stands between a log and the contract. Differences are for the operator: nothing here alters a topic."""

    missing: tuple[TopicSpec, ...]
    differing: tuple[Difference, ...]

    @property
    def is_fulfilled(self) -> bool:
        """Tells whether every topic is there and as it should be."""
        return not self.missing and not self.differing


def contract(settings: KafkaSettings) -> tuple[TopicSpec, ...]:
    """The topics of the contract under the configured prefix, and the further request topics."""
    topics = Topics(settings.topic_prefix)
    # Larger than a worker accepts, so that an oversized request reaches it and is answered.
    requests = _FROM_OUTSIDE | {"max.message.bytes": str(8 * _MIB), "retention.ms": str(7 * _DAY_MS)}
    others = {request.topic: request for request in settings.request_topics if request.topic != topics.requests}
    return (
        *(TopicSpec(name=name, partitions=settings.partitions, config=requests) for name in (topics.requests, *others)),
        # Takeovers read what was said before; a request that began days ago starts afresh.
        TopicSpec(name=topics.chunks, partitions=settings.partitions, config={"retention.ms": str(3 * _DAY_MS)}),
        TopicSpec(
            name=topics.results,
            partitions=settings.partitions,
            config={"max.message.bytes": str(16 * _MIB), "retention.ms": str(7 * _DAY_MS)},  # embeddings are long lines
        ),
        # A cancel has to live as long as the request that it cancels.
        TopicSpec(name=topics.control, partitions=1, config=_FROM_OUTSIDE | {"retention.ms": str(7 * _DAY_MS)}),
        # A request with its headers and what went wrong.
        TopicSpec(name=topics.dlq, partitions=1, config={"max.message.bytes": str(16 * _MIB), "retention.ms": str(30 * _DAY_MS)}),
    )


def plan(transport: Transport, specs: Sequence[TopicSpec]) -> Plan:
    """Compares the log with what it should be."""
    states = transport.describe([spec.name for spec in specs])
    missing = tuple(spec for spec in specs if spec.name not in states)
    differing = tuple(difference for spec in specs if spec.name in states for difference in _differences(spec, states[spec.name]))
    return Plan(missing, differing)


def apply(transport: Transport, specs: Sequence[TopicSpec]) -> Plan:
    """Creates what is missing and returns the plan that was found; applying it again changes nothing."""
    found = plan(transport, specs)
    if found.missing:
        transport.create(found.missing)
    return found


def _differences(spec: TopicSpec, state: TopicState) -> list[Difference]:
    differences = []
    # More partitions than asked for are somebody's decision; fewer would be ours to miss.
    if state.partitions < spec.partitions:
        differences.append(Difference(spec.name, "partitions", str(state.partitions), str(spec.partitions)))
    for key, wanted in spec.config.items():
        actual = state.config.get(key, "unset")
        if actual != wanted:
            differences.append(Difference(spec.name, key, actual, wanted))
    return differences
