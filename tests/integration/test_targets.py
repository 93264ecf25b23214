"""A worker that was told a target, from the outside: bursty live streams beside a backlog that fills the engine. The benchmark has figures."""

import pytest

from benchmarks.batching.arrivals import Bursts, Lengths, flex, live
from benchmarks.batching.kafka import Watching
from benchmarks.batching.policies import Contender
from benchmarks.batching.serving import Run, Span
from pipeline.models import TINY
from pipeline.scheduling.explanation import Closed
from pipeline.scheduling.policy import FirstCome
from pipeline.settings import load

pytestmark = pytest.mark.integration

SPAN = Span(settle_s=0.5, measured_s=2.0, grace_s=20.0)


def test_live_streams_and_a_backlog_are_both_served_and_batches_say_why_they_closed(start_worker, kafka_broker, topic_prefix):
    """Every live request ends, flex work goes on beside it, and the worker names the reasons."""
    worker = start_worker("--model", f"tiny={TINY}", PENSTOCK_TARGETS__TTFT_MS="100", PENSTOCK_TARGETS__TPOT_MS="100")
    settings = load({"kafka": {"bootstrap_servers": kafka_broker.bootstrap_servers, "topic_prefix": topic_prefix}})
    server = Watching(settings, worker.data_dir / f"worker-{worker.process.pid}.json")
    arrivals = live(Lengths(), Bursts(per_s=10.0, period_s=2.0, burst_s=0.2), SPAN.end_s, 1)
    lengths = Lengths(output_median=16.0)
    outcome = Run(server, Contender(name="worker", policy=FirstCome()), SPAN, arrivals, flex(lengths, 1)).go()
    server.close()
    assert len(outcome.live) > 5
    assert all(watched.has_ended for watched in outcome.live)
    assert outcome.flex_tokens > 0
    assert set(server.last["closed"]) <= set(Closed)
    assert sum(server.last["closed"].values()) == server.last["steps"] > 0
    assert sum(value for name, value in worker.metrics().items() if name.startswith("penstock_batch_closed_total{")) > 0
