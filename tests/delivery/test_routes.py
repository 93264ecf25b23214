"""Where an answer may go."""

from dataclasses import dataclass, field

import pytest

from pipeline.delivery.routes import Routes
from pipeline.settings import load
from pipeline.transport.base import Partition, UnknownTopic
from schemas.errors import InvalidRequest, UnauthorizedReply
from schemas.record import ReplyAddress


@dataclass
class Topics:
    """Stands for a producer: knows how many partitions there are."""

    counts: dict[str, int] = field(default_factory=lambda: {"penstock.chunks": 4, "penstock.results": 4, "team.a": 2, "other.b": 2})

    def partitions(self, topic: str) -> int:
        if topic not in self.counts:
            raise UnknownTopic(topic)
        return self.counts[topic]

    def partition_for(self, topic: str, key: bytes) -> Partition:
        return Partition(topic, sum(key) % self.partitions(topic))


def routes() -> Routes:
    """Rules with two tenants and a further request topic."""
    return Routes.of(
        load(
            {
                "kafka": {"request_topics": [{"topic": "team.requests", "tenant": "team"}]},
                "tenants": {"team": {"reply_topics": ["team.*", "absent"]}, "other": {"reply_topics": ["other.b"]}},
            }
        )
    )


def address(**fields: object) -> ReplyAddress:
    """An address with a name."""
    return ReplyAddress(**({"custom_id": "c", "correlation_id": "k"} | fields))


def test_streams_and_results_have_their_own_default():
    """Without `reply_to` a stream goes to the chunks, everything else to the results."""
    assert routes().resolve(address(), "default", Topics()).partition.topic == "penstock.chunks"
    assert routes().resolve(address(stream=False), "default", Topics()).partition.topic == "penstock.results"


def test_one_request_has_one_partition():
    """The partition follows from the name alone, so that all events of a request share it."""
    first = routes().resolve(address(), "default", Topics())
    assert first == routes().resolve(address(), "default", Topics())


def test_the_tenant_of_a_request_is_its_topic():
    """Request topics are bound to tenants."""
    assert routes().tenant("team.requests") == "team"
    assert routes().tenant("penstock.requests") == "default"
    assert set(routes().request_topics) == {"penstock.requests", "team.requests"}


@pytest.mark.parametrize(
    ("tenant", "topic"),
    [
        ("default", "team.a"),
        ("other", "team.a"),
        ("team", "other.b"),
        ("team", "team.requests"),
        ("team", "penstock.requests"),
        ("team", "penstock.control"),
        ("team", "penstock.dlq"),
        ("team", "absent"),
    ],
)
def test_unlisted_internal_and_absent_topics_are_refused(tenant, topic):
    """Only what stands on the tenant's own list, exists and is not internal may be replied to; refusals go to the default topic."""
    with pytest.raises(UnauthorizedReply):
        routes().resolve(address(reply_to=topic), tenant, Topics())
    assert routes().fallback(address(reply_to=topic), tenant, Topics()).partition.topic == "penstock.chunks"


def test_a_listed_topic_and_an_existing_partition_are_taken():
    """Patterns of the list count; the partition asked for is the one used."""
    route = routes().resolve(address(reply_to="team.a", reply_partition=1), "team", Topics())
    assert route.partition == Partition("team.a", 1)


@pytest.mark.parametrize("partition", [2, 99])
def test_a_partition_that_does_not_exist_is_refused(partition):
    """The message says how many there are."""
    with pytest.raises(InvalidRequest, match="below 2"):
        routes().resolve(address(reply_to="team.a", reply_partition=partition), "team", Topics())
