"""Answers given again, through the whole worker."""

import json

import pytest

from pipeline.engine.fake import FakeEngine
from schemas.events import Begin, Chunk, End

CACHE = {"response_cache": {"enabled": True}}
GREEDY = {"prompt": "one two three", "temperature": 0, "max_tokens": 40, "ignore_eos": True}


class CountingEngine(FakeEngine):
    """Counts what it is given to do."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.added = 0

    def add(self, *job) -> None:
        self.added += 1
        super().add(*job)


def ask(worker, name: str, **body):
    """Publishes and waits."""
    worker.publish(name, **body)
    worker.run_until_closed(name)
    return worker.closing(name)


def test_the_same_greedy_request_is_answered_again_without_the_engine(bench):
    """Begin, the same tokens and text, an end that says so; and the offset is committed."""
    worker = bench(CountingEngine(), **CACHE)
    first = ask(worker, "a", **GREEDY)
    again = ask(worker, "b", **GREEDY, user="somebody", service_tier="flex", seed=4)
    assert worker.engine.added == 1
    assert (first.usage.is_cached, again.usage.is_cached) == (False, True)
    assert (again.usage.prompt_tokens, again.usage.completion_tokens, again.finish_reasons) == (3, 40, first.finish_reasons)
    assert worker.tokens("a") == worker.tokens("b")
    texts = ["".join(event.text for event in worker.accepted(name) if isinstance(event, Chunk)) for name in "ab"]
    assert texts[0] == texts[1]
    (at, begin), *rest = worker.events("b")
    assert isinstance(begin, Begin)
    assert [(event.attempt, event.seq) for _, event in rest] == [(at, seq) for seq in range(len(rest))]
    worker.run_until(lambda: worker.lag() == 0)


def test_a_stream_and_a_line_share_an_answer(bench):
    """What was streamed comes back as one line, with the usage that says so."""
    worker = bench(CountingEngine(), **CACHE)
    ask(worker, "a", **GREEDY, n=2)
    worker.publish("b", **GREEDY, n=2, stream=False)
    worker.run_until(lambda: "b" in worker.results())
    body = worker.results()["b"]["response"]["body"]
    assert worker.engine.added == 1
    assert body["usage"]["penstock_cache"] == "hit"
    assert [choice["text"] for choice in body["choices"]] == [
        "".join(event.text for event in worker.accepted("a") if isinstance(event, Chunk) and event.index == index) for index in range(2)
    ]


@pytest.mark.parametrize(
    "change", [{"prompt": "one two"}, {"max_tokens": 41}, {"stop": "zzz"}, {"n": 2}, {"echo": True}, {"temperature": 0.5, "seed": 3}]
)
def test_another_request_is_computed(bench, change):
    """Whatever counts makes another key."""
    worker = bench(CountingEngine(), **CACHE)
    ask(worker, "a", **GREEDY)
    assert not ask(worker, "b", **GREEDY | change).usage.is_cached
    assert worker.engine.added == 2


def test_a_seed_makes_a_draw_repeatable_and_without_one_each_is_its_own(bench):
    """The same seed is a hit, another is not, and an unseeded draw is never kept."""
    worker = bench(CountingEngine(), **CACHE)
    drawn = GREEDY | {"temperature": 1.0}
    for name, body in (("a", drawn | {"seed": 1}), ("b", drawn | {"seed": 2}), ("c", drawn), ("d", drawn)):
        assert not ask(worker, name, **body).usage.is_cached
    assert ask(worker, "e", **drawn, seed=1).usage.is_cached
    assert not ask(worker, "f", **drawn, seed=1, top_p=0.5).usage.is_cached


def test_no_tenant_sees_anothers_answers(bench):
    """The same request under another tenant is computed."""
    kafka = {"partitions": 2, "session_timeout_ms": 3000, "request_topics": [{"topic": "other", "tenant": "other"}]}
    worker = bench(CountingEngine(), kafka=kafka, **CACHE)
    ask(worker, "a", **GREEDY)
    value = {"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"model": "fake", "stream": True, **GREEDY}}
    worker.publish_value(json.dumps(value).encode(), "b", topic="other")
    worker.run_until_closed("b")
    assert not worker.closing("b").usage.is_cached


def test_only_an_answer_that_ended_well_is_kept(bench):
    """A cancelled request leaves nothing behind."""
    worker = bench(CountingEngine(step_s=0.001), **CACHE)
    long = GREEDY | {"max_tokens": 300}
    worker.publish("a", **long)
    worker.run_until(lambda: bool(worker.tokens("a")))
    worker.cancel("a")
    worker.run_until_closed("a")
    assert worker.closing("a").code == "cancelled"
    end = ask(worker, "b", **long)
    assert isinstance(end, End)
    assert not end.usage.is_cached


def test_it_is_off_unless_asked_for(bench):
    """Twice the same is computed twice."""
    worker = bench(CountingEngine())
    ask(worker, "a", **GREEDY)
    assert not ask(worker, "b", **GREEDY).usage.is_cached
    assert worker.engine.added == 2
