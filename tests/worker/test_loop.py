"""The worker's loop, step by step, on the embedded log."""

import json
import time
from collections.abc import Sequence

import pytest

from pipeline.engine.base import Job, RequestKey, StepOutput
from pipeline.engine.fake import FakeEngine
from pipeline.loop import Phase
from pipeline.scheduling.sequence import Lane
from schemas.errors import EngineError
from schemas.events import Begin, Chunk, End, Error, FinishReason, Reset

LONG = {"max_tokens": 500, "ignore_eos": True}


class FaultyEngine(FakeEngine):
    """Fails a request in a step after its third token, as often as it is told to."""

    def __init__(self, failures: int):
        super().__init__()
        self.failures = failures
        self.seen: dict[RequestKey, int] = {}

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        self.seen[key] = 0
        super().add(key, job, lane, now_s)

    def step(self, now_s: float) -> Sequence[StepOutput]:
        outputs = list(super().step(now_s))
        for index, output in enumerate(outputs):
            self.seen[output.key] = self.seen.get(output.key, 0) + 1
            if self.seen[output.key] >= 4 and self.failures:
                self.failures -= 1
                self.cancel(output.key)
                outputs[index] = StepOutput(key=output.key, error=EngineError("injected"))
        return outputs


def reference(bench, name: str, max_tokens: int = 20) -> list[int]:
    """What the engine says to the prompt of that name when nothing goes wrong."""
    bench.publish(f"{name}-reference", prompt=name, max_tokens=max_tokens, ignore_eos=True)
    bench.run_until_closed(f"{name}-reference")
    return bench.tokens(f"{name}-reference")


def test_a_stream_opens_speaks_and_closes(bench):
    """Begin, chunks with consecutive seq under its offset, one end with usage; then the offset is committed."""
    worker = bench()
    worker.publish("a", prompt="one two three", max_tokens=30, ignore_eos=True)
    worker.run_until_closed("a")
    (at, begin), *rest = worker.events("a")
    assert isinstance(begin, Begin)
    assert not begin.resume
    assert begin.origin.startswith(f"{worker.settings.topics.requests}/")
    assert [event.seq for _, event in rest] == list(range(len(rest)))
    assert {event.attempt for _, event in rest} == {at}
    end = worker.closing("a")
    assert isinstance(end, End)
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (3, 30)
    assert end.finish_reasons == (FinishReason.LENGTH,)
    worker.run_until(lambda: worker.lag() == 0)


def test_the_first_token_goes_out_at_once_and_the_rest_in_groups(bench):
    """With a long flush interval there is one event for the first token and few for the rest."""
    worker = bench(stream={"flush_interval_ms": 10_000, "flush_tokens": 50})
    worker.publish("a", prompt="x", max_tokens=201, ignore_eos=True)
    worker.run_until_closed("a")
    sizes = [len(event.token_ids) for event in worker.accepted("a") if isinstance(event, Chunk)]
    assert sum(sizes) == 201
    assert max(sizes) >= 50
    assert len(sizes) <= 6


def test_tokens_of_flex_work_leave_less_often(bench):
    """The first one at once too; then a stream that nobody reads along has few events where one that is read has many.

    Tokens pile up while an event is on its way to the log, so steps take long enough that a disk which is slow for a moment changes nothing.
    """
    worker = bench(FakeEngine(step_s=0.005), stream={"flush_interval_ms": 0, "flex_flush_interval_ms": 10_000, "flush_tokens": 50})
    for tier in ("default", "flex"):
        worker.publish(tier, prompt="x", max_tokens=201, ignore_eos=True, service_tier=tier)
    worker.run_until_closed("default", "flex")
    live, flex = ([len(event.token_ids) for event in worker.accepted(tier) if isinstance(event, Chunk)] for tier in ("default", "flex"))
    assert sum(live) == sum(flex) == 201
    assert len(live) > 3 * len(flex)
    assert flex[0] < max(flex) == 50


def test_choices_share_one_sequence_of_events(bench):
    """With `n` of 3, seq and token_offset run over the whole request, each choice is complete, one end names three reasons."""
    worker = bench()
    worker.publish("a", prompt="x", n=3, max_tokens=12, ignore_eos=True)
    worker.run_until_closed("a")
    chunks = [event for event in worker.accepted("a") if isinstance(event, Chunk)]
    seen = 0
    for chunk in chunks:
        assert chunk.token_offset == seen
        seen += len(chunk.token_ids)
    assert seen == 36
    assert {index: sum(len(c.token_ids) for c in chunks if c.index == index) for index in range(3)} == {0: 12, 1: 12, 2: 12}
    end = worker.closing("a")
    assert isinstance(end, End)
    assert len(end.finish_reasons) == 3
    assert end.usage.completion_tokens == 36


def test_a_result_holds_everything_in_one_line(bench):
    """A request that is not streamed gets one line with body, usage and origin, and no begin anywhere."""
    worker = bench()
    worker.publish("a", prompt="x", stream=False, n=2, max_tokens=5, ignore_eos=True)
    worker.run_until(lambda: "a" in worker.results())
    line = worker.results()["a"]
    assert line["error"] is None
    assert [choice["index"] for choice in line["response"]["body"]["choices"]] == [0, 1]
    assert line["response"]["body"]["usage"]["completion_tokens"] == 10
    assert worker.events("a") == []
    worker.run_until(lambda: worker.lag() == 0)


def test_a_request_that_fails_in_the_engine_is_tried_again(bench):
    """One failure in the middle: the reader sees a reset, then the whole output, once."""
    worker = bench(FaultyEngine(failures=0))
    expected = reference(worker, "p", max_tokens=1_000)
    worker.publish("a", prompt="p", max_tokens=1_000, ignore_eos=True)
    worker.run_until(lambda: any(isinstance(event, Chunk) for _, event in worker.events("a")))
    worker.engine.failures = 1
    worker.run_until_closed("a")
    assert worker.tokens("a") == expected
    assert isinstance(worker.closing("a"), End)
    assert any(isinstance(event, Reset) for _, event in worker.events("a"))


def test_a_request_that_keeps_failing_is_dead_and_its_neighbours_are_not(bench):
    """After the configured attempts the request gets its error and a dead letter; what ran beside it is whole."""
    worker = bench(FaultyEngine(failures=0))
    expected = reference(worker, "neighbour")
    worker.publish("neighbour", prompt="neighbour", max_tokens=20, ignore_eos=True)
    worker.run_until(lambda: worker.engine.stats().running == 1)
    worker.engine.seen = dict.fromkeys(worker.engine.seen, -1_000)
    worker.engine.failures = 2
    worker.publish("bad", prompt="q", max_tokens=20, ignore_eos=True)
    worker.run_until_closed("bad", "neighbour")
    error = worker.closing("bad")
    assert isinstance(error, Error)
    assert error.code == "engine_error"
    assert worker.tokens("neighbour") == expected
    (letter,) = worker.dead_letters()
    headers = {name: value.decode() for name, value in letter.headers}
    assert headers["penstock_error_code"] == "engine_error"
    assert headers["penstock_attempts"] == "2"
    assert json.loads(letter.value)["custom_id"] == "bad"
    worker.run_until(lambda: worker.lag() == 0)


def test_priority_goes_first_and_flex_last(bench):
    """With one place in the batch, requests that wait are served by lane, not by arrival."""
    worker = bench(FakeEngine(max_sequences=1))
    worker.publish("running", prompt="x", key="k", max_tokens=60, ignore_eos=True)
    worker.run_until(lambda: worker.engine.stats().running == 1)
    for name, tier in (("f", "flex"), ("d", "default"), ("p", "priority")):
        worker.publish(name, prompt=name, key="k", service_tier=tier, max_tokens=5, ignore_eos=True)
    worker.run_until_closed("running", "f", "d", "p")
    ended = [r.key.decode() for r in worker.records if ("event", b"end") in r.headers]
    assert [name for name in ended if name != "running"] == ["p", "d", "f"]


def test_a_full_house_leaves_requests_in_the_log(bench):
    """At the bound on waiting requests the partitions pause: nothing is refused, and everything is answered in time."""
    worker = bench(FakeEngine(max_sequences=1), limits={"waiting_requests": 3})
    names = [f"r{i}" for i in range(300)]
    for name in names:
        worker.publish(name, prompt=name, max_tokens=2, ignore_eos=True)
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, worker.engine.stats().waiting)
        return len([r for r in worker.records if ("event", b"end") in r.headers]) == 300

    worker.run_until(done)
    assert most <= 3 + 64
    worker.run_until(lambda: worker.lag() == 0)


def test_a_drain_ends_what_runs_and_leaves_what_waits(bench):
    """After the signal what runs may end; what had not begun stays uncommitted for the next worker, which finishes it."""
    worker = bench(FakeEngine(max_sequences=1, step_s=0.002), limits={"drain_s": 10.0})
    worker.publish("runs", prompt="x", key="k", max_tokens=50, ignore_eos=True)
    worker.publish("waits", prompt="y", key="k", max_tokens=50, ignore_eos=True)
    worker.run_until(lambda: bool(worker.tokens("runs")))
    worker.loop.run(lambda: True, lambda: False)
    assert worker.loop.phase is Phase.DONE
    worker.loop.close()
    worker.records.extend(worker.reader.poll(0.5, 1_000))
    assert isinstance(worker.closing("runs"), End)
    assert worker.closing("waits") is None
    assert worker.lag() == 1
    second = bench(limits={"drain_s": 0.0})
    second.records = worker.records
    second.run_until(lambda: second.lag() == 0)
    second.records.extend(worker.reader.poll(0.5, 1_000))
    assert len(second.tokens("waits")) == 50
    assert isinstance(second.closing("waits"), End)


def test_a_deadline_and_a_cancel_end_what_waits(bench):
    """Both take effect on a request that never ran."""
    worker = bench(FakeEngine(max_sequences=1, step_s=0.001))
    worker.publish("runs", prompt="x", key="k", **LONG)
    worker.publish("late", prompt="y", key="k", headers={"deadline": str(int(time.time() * 1000) + 200)}, **LONG)
    worker.publish("unwanted", prompt="z", key="k", **LONG)
    worker.run_until(lambda: bool(worker.tokens("runs")))
    worker.cancel("unwanted")
    worker.run_until_closed("late", "unwanted", "runs")
    assert worker.closing("late").code == "deadline_exceeded"
    assert worker.closing("unwanted").code == "cancelled"
    assert isinstance(worker.closing("runs"), End)


def test_an_arrow_record_is_done_when_all_its_rows_are(bench):
    """Rows are requests of their own with origins of their own; one bad row harms no other."""
    from schemas.codec import BatchRow, encode_request_batch
    from schemas.request import Endpoint

    worker = bench()
    rows = [("r0", {"model": "fake", "prompt": "x", "stream": True, "max_tokens": 5, "ignore_eos": True}), ("r1", {"model": "fake", "prompt": ""})]
    encoded = encode_request_batch([BatchRow(custom_id=name, endpoint=Endpoint.COMPLETIONS, body=body) for name, body in rows])
    worker.publish_value(encoded.value, "batch", {name: value.decode() for name, value in encoded.headers})
    worker.run_until(lambda: worker.closing("r0") is not None and "r1" in worker.results())
    assert len(worker.tokens("r0")) == 5
    assert worker.events("r0")[0][1].origin.endswith("/0")
    assert worker.results()["r1"]["error"]["code"] == "invalid_request"
    worker.run_until(lambda: worker.lag() == 0)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"reply_to": "penstock.requests"}, "unauthorized_reply_topic"),
        ({"reply_to": "elsewhere"}, "unauthorized_reply_topic"),
        ({"reply_partition": "99"}, "invalid_request"),
    ],
)
def test_an_answer_goes_only_where_it_may(bench, headers, code):
    """An internal, unlisted or absent reply address is refused at the default topic, and nothing is produced there."""
    worker = bench()
    worker.publish("a", prompt="x", headers=headers)
    worker.run_until_closed("a")
    assert worker.closing("a").code == code


def test_a_listed_reply_topic_is_used(bench):
    """A topic on the tenant's list gets the stream, in the partition asked for."""
    from pipeline.transport.base import Partition, TopicSpec

    worker = bench(tenants={"default": {"reply_topics": ["team.*"]}})
    worker.transport.create([TopicSpec(name="team.replies", partitions=3)])
    reader = worker.transport.reader(frozenset({Partition("team.replies", 2)}))
    worker.publish("a", prompt="x", headers={"reply_to": "team.replies", "reply_partition": "2"}, max_tokens=3, ignore_eos=True)
    heard = []

    def ended() -> bool:
        heard.extend(reader.poll(0.0, 100))
        return any(("event", b"end") in record.headers for record in heard)

    worker.run_until(ended)
    assert worker.events("a") == []
    reader.close(1.0)


def test_a_failed_request_may_be_sent_again_and_a_finished_one_is_not_repeated(bench):
    """A second copy of an answered request changes nothing; a second copy of a cancelled one runs."""
    worker = bench()
    worker.publish("good", prompt="x", max_tokens=3, ignore_eos=True)
    worker.run_until_closed("good")
    before = len(worker.events("good"))
    worker.publish("good", prompt="x", max_tokens=3, ignore_eos=True)
    worker.run_until(lambda: worker.lag() == 0)
    assert len(worker.events("good")) == before
    worker.publish("bad", prompt="x", **LONG)
    worker.cancel("bad")
    worker.run_until_closed("bad")
    worker.publish("bad", prompt="x", max_tokens=3, ignore_eos=True)
    worker.run_until(lambda: sum(isinstance(event, End | Error) for _, event in worker.events("bad")) == 2)
    assert isinstance(worker.events("bad")[-1][1], End)
