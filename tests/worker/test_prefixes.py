"""What the worker tells its engines and its operators of shared prompts, and how an echoed prompt leaves it."""

from pipeline.engine.base import EngineStats, Job, RequestKey
from pipeline.engine.fake import FakeEngine
from pipeline.scheduling.sequence import Lane
from pipeline.telemetry import Metrics
from schemas.events import Chunk


class Listening(FakeEngine):
    """Notes for whom each job is."""

    def __init__(self) -> None:
        super().__init__()
        self.tenants: list[str] = []

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        self.tenants.append(job.tenant)
        super().add(key, job, lane, now_s)


def test_an_engine_learns_whose_request_it_computes(bench):
    """By the topic that it came through, so that tenants share no prefixes."""
    engine = Listening()
    worker = bench(engine=engine, kafka={"request_topics": [{"topic": "team-a.requests", "tenant": "team-a"}]})
    worker.publish("a", prompt="one two", max_tokens=2)
    worker.run_until_closed("a")
    body = (
        b'{"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"model": "fake", "prompt": "x", "max_tokens": 2, "stream": true}}'
    )
    worker.publish_value(body, "b", topic="team-a.requests")
    worker.run_until(lambda: len(engine.tenants) == 2)
    assert engine.tenants[1] == "team-a"
    assert engine.tenants[0] != "team-a"


def test_an_echoed_prompt_comes_with_the_first_chunk_and_counts_no_token(bench):
    """Ids, offsets and usage are the output's; a result record has the same text."""
    worker = bench()
    worker.publish("a", prompt="over the mill", max_tokens=6, ignore_eos=True, echo=True)
    worker.publish("b", prompt="over the mill", max_tokens=6, ignore_eos=True, echo=True, stream=False)
    worker.run_until(lambda: worker.closing("a") is not None and "b" in worker.results())
    chunks = [event for event in worker.accepted("a") if isinstance(event, Chunk)]
    assert chunks[0].text.startswith("over the mill")
    assert chunks[0].token_offset == 0
    assert sum(len(chunk.token_ids) for chunk in chunks) == worker.closing("a").usage.completion_tokens == 6
    (choice,) = worker.results()["b"]["response"]["body"]["choices"]
    assert choice["text"] == "".join(chunk.text for chunk in chunks)


def test_prefix_counters_follow_the_engines_totals():
    """Counters under Prometheus' names, over all models, never counted twice."""
    metrics = Metrics()
    for total in (5, 5, 12):
        metrics.observe_engines([EngineStats(prefix_query_tokens_total=total * 2, prefix_hit_tokens_total=total), EngineStats()])
    assert metrics.registry.get_sample_value("penstock_prefix_cache_hit_tokens_total") == 12
    assert metrics.registry.get_sample_value("penstock_prefix_cache_query_tokens_total") == 24
