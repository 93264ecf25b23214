from pathlib import Path

import pytest

from pipeline.settings import KafkaSettings, RequestTopic, Settings
from pipeline.transport import topics
from pipeline.transport.base import TopicSpec
from pipeline.transport.embedded import EmbeddedTransport
from pipeline.transport.kafka import KafkaTransport
from pipeline.transport.opening import open_transport
from schemas.topics import Topics


@pytest.fixture
def transport(tmp_path: Path):
    """An embedded log without topics."""
    log = EmbeddedTransport(tmp_path / "log.sqlite", session_timeout_s=1.0, revoke_budget_s=1.0)
    yield log
    log.close()


def test_the_contract_names_every_topic_once():
    """The five topics of the contract and the further request topics; one that is listed twice is one topic."""
    further = (RequestTopic(topic="other.requests", tenant="a"), RequestTopic(topic="p.requests", tenant="b"))
    specs = {spec.name: spec for spec in topics.contract(KafkaSettings(topic_prefix="p", partitions=7, request_topics=further))}
    assert specs.keys() == {*Topics("p").all, "other.requests"}
    assert {name: spec.partitions for name, spec in specs.items()} == {
        "p.requests": 7,
        "other.requests": 7,
        "p.chunks": 7,
        "p.results": 7,
        "p.control": 1,
        "p.dlq": 1,
    }


def test_what_strangers_write_is_stamped_by_the_log_and_limited():
    """An oversized request reaches the worker, its dead letter fits, and no producer's clock or compression is trusted."""
    specs = {spec.name: spec.config for spec in topics.contract(KafkaSettings())}
    for name in ("penstock.requests", "penstock.control"):
        assert specs[name]["message.timestamp.type"] == "LogAppendTime"
        assert specs[name]["compression.type"] == "uncompressed"
    assert int(specs["penstock.requests"]["max.message.bytes"]) == 8 * 1024 * 1024
    assert int(specs["penstock.dlq"]["max.message.bytes"]) == 16 * 1024 * 1024


def test_applying_creates_what_is_missing_and_then_nothing(transport: EmbeddedTransport):
    """The first time all of it, the second time none of it."""
    specs = topics.contract(KafkaSettings())
    assert topics.plan(transport, specs) == topics.Plan(specs, ())
    assert not topics.plan(transport, specs).is_fulfilled
    assert topics.apply(transport, specs).missing == specs
    assert topics.apply(transport, specs) == topics.Plan((), ())
    assert topics.plan(transport, specs).is_fulfilled


def test_differences_are_told_and_not_touched(transport: EmbeddedTransport):
    """Fewer partitions and other settings are named; more partitions and further settings are somebody's decision."""
    transport.create(
        [
            TopicSpec(name="few", partitions=2, config={"retention.ms": "5", "other": "1"}),
            TopicSpec(name="many", partitions=9, config={"retention.ms": "7"}),
        ]
    )
    wanted = [TopicSpec(name=name, partitions=4, config={"retention.ms": "7", "max.message.bytes": "8"}) for name in ("few", "many")]
    found = topics.apply(transport, wanted)
    assert [str(difference) for difference in found.differing] == [
        "few: partitions is 2, should be 4",
        "few: retention.ms is 5, should be 7",
        "few: max.message.bytes is unset, should be 8",
        "many: max.message.bytes is unset, should be 8",
    ]
    assert topics.plan(transport, wanted) == found


def test_settings_pick_the_log(tmp_path: Path):
    """Opening touches nothing: a broker that is away and a folder that is not there show at the first use."""
    embedded = open_transport(Settings(transport="embedded", data_dir=tmp_path / "data"))  # type: ignore[arg-type]
    assert isinstance(embedded, EmbeddedTransport)
    assert not (tmp_path / "data").exists()
    assert isinstance(open_transport(Settings(transport="kafka", data_dir=tmp_path)), KafkaTransport)  # type: ignore[arg-type]
