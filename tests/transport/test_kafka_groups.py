"""Groups on a real broker: a member that freezes, and a session that the broker does not allow."""

import pytest
from kafka.structs import MemberState

from pipeline.transport.base import Committed, TopicSpec, TransportError
from pipeline.transport.kafka import KafkaTransport
from tests.broker import KafkaBroker
from tests.transport.actors import Member, OtherProcess, Recipe, until
from tests.transport.connecting import connected, shared

__all__ = ["shared"]

pytestmark = pytest.mark.integration


def test_commits_succeed_while_the_group_waits_for_a_member(shared: KafkaTransport, kafka_broker: KafkaBroker, topic_prefix: str):
    """A frozen process holds up a rebalance for its whole session; those that go on working go on committing."""
    topic, group = f"{topic_prefix}.topic", f"{topic_prefix}.group"
    shared.create([TopicSpec(name=topic, partitions=3)])
    recipe = Recipe(path=None, servers=kafka_broker.bootstrap_servers, session_timeout_s=20.0, revoke_budget_s=2.0)
    with OtherProcess(recipe, group, [topic]) as other, shared.consumer(group, [topic]) as consumer:
        works = Member(consumer)
        until(lambda: len(other.owns()) + len(works.owned) == 3 and works.owned and other.owns(), works)
        other.stop()
        with shared.consumer(group, [topic]) as newcomer:
            waits = Member(newcomer)
            until(lambda: consumer._pump._consumer.group_metadata().state == MemberState.REBALANCING, works, waits)
            one = min(works.owned)
            for offset in range(20):
                works.turn()
                consumer.commit({one: Committed(offset)}, timeout_s=1.0)
            assert consumer.committed(frozenset({one})) == {one: Committed(19)}
            assert consumer._pump._consumer.group_metadata().state == MemberState.REBALANCING
            assert not waits.owned
            other.kill()


def test_a_session_timeout_that_the_broker_refuses_is_named(kafka_broker: KafkaBroker, topic_prefix: str):
    """The broker's own words say nothing of the setting."""
    with connected(kafka_broker.bootstrap_servers, session_timeout_ms=1_000) as transport:
        transport.create([TopicSpec(name=f"{topic_prefix}.topic", partitions=1)])
        with transport.consumer(f"{topic_prefix}.group", [f"{topic_prefix}.topic"]) as consumer:
            member = Member(consumer)
            with pytest.raises(TransportError, match="session_timeout_ms"):
                until(lambda: False, member)
