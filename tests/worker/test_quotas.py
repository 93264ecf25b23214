"""Tenants' rates through the whole worker."""

import json
import time

from pipeline.engine.fake import FakeEngine
from pipeline.quota.quotas import Reservation
from pipeline.transport.base import TopicSpec
from schemas.events import Begin, End, Error

FLOOD = "flood.requests"
TENANTS = {"kafka": {"partitions": 2, "session_timeout_ms": 3000, "request_topics": [{"topic": FLOOD, "tenant": "flood"}]}}


def publish_as_flood(worker, custom_id: str, **body) -> None:
    """Publishes a request of the tenant `flood`."""
    value = {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"model": "fake", "stream": True, "prompt": "x", **body}}
    worker.publish_value(json.dumps(value).encode(), custom_id, topic=FLOOD)


def test_a_tenant_that_floods_is_refused_with_a_retry_time_and_the_others_go_on(bench):
    """Five per minute: five streams, then errors that say when; the other tenant has its forty, and everything is committed."""
    worker = bench(rate_limits={"tenants": {"flood": {"requests_per_minute": 5}}}, **TENANTS)
    for number in range(40):
        publish_as_flood(worker, f"f{number}", max_tokens=3, ignore_eos=True)
        worker.publish(f"g{number}", prompt="x", max_tokens=3, ignore_eos=True)
    names = [f"{tenant}{number}" for tenant in "fg" for number in range(40)]
    worker.run_until_closed(*names)
    closings = {name: worker.closing(name) for name in names}
    refused = [closing for closing in closings.values() if isinstance(closing, Error)]
    assert len(refused) == 35
    assert {error.code for error in refused} == {"rate_limited"}
    assert all(0 < (error.retry_after_ms or 0) <= 12_000 for error in refused)
    assert all(isinstance(closings[f"g{number}"], End) for number in range(40))
    worker.run_until(lambda: worker.lag() == 0)


def exhausted(bench, **rates: float):
    """A worker whose tenant `flood` has used its minute."""
    worker = bench(rate_limits={"tenants": {"flood": {"requests_per_minute": 1}}, **rates}, **TENANTS)
    publish_as_flood(worker, "first", max_tokens=1)
    worker.run_until_closed("first")
    return worker


def lag_of_flood(worker) -> int:
    """Its records that are not committed."""
    return sum(lag.end - (lag.committed or 0) for lag in worker.transport.lag(worker.settings.kafka.group_id, [FLOOD]))


def test_a_flood_is_refused_behind_those_who_may_go(bench):
    """Its thirty records were there first and come with the same poll; the stream of another tenant begins before any of them is answered."""
    worker = exhausted(bench)
    for number in range(30):
        publish_as_flood(worker, f"f{number}", max_tokens=3)
    worker.publish("g", prompt="x", max_tokens=3)
    names = [f"f{number}" for number in range(30)]
    worker.run_until_closed("g", *names)
    assert isinstance(worker.closing("g"), End)
    assert {worker.closing(name).code for name in names} == {"rate_limited"}
    heard = [record.key.decode() for record in sorted(worker.records, key=lambda record: record.timestamp_ms) if record.key != b"first"]
    assert heard[0] == "g"
    worker.run_until(lambda: lag_of_flood(worker) == 0)


def test_while_others_have_requests_few_are_refused(bench):
    """The rest waits in the log, and is refused once nobody else has any: here none at all before, and ten after."""
    worker = exhausted(bench, refusals_per_s=0.01)
    names = [f"f{number}" for number in range(10)]
    for name in names:
        publish_as_flood(worker, name, max_tokens=3)
    worker.publish("g", prompt="x", max_tokens=200, ignore_eos=True)
    worker.run_until_closed("g")
    assert not any(worker.events(name) for name in names)
    worker.run_until_closed(*names)
    assert {worker.closing(name).code for name in names} == {"rate_limited"}
    worker.run_until(lambda: lag_of_flood(worker) == 0)


def test_what_follows_a_flood_in_its_partition_keeps_its_turn(bench):
    """As soon as the tenant may go again its next request does, be it one that was set aside; the rest is refused, and nothing is left out."""
    worker = exhausted(bench)
    names = [f"f{number}" for number in range(20)]
    for name in names:
        publish_as_flood(worker, name, max_tokens=3, ignore_eos=True)
    worker.run_until(lambda: bool(worker.loop.intake._aside))
    quotas = worker.loop.admission.quotas
    quotas.release(Reservation("flood", 0), time.monotonic())
    worker.run_until_closed(*names)
    assert [type(worker.closing(name)).__name__ for name in names].count("End") == 1
    worker.run_until(lambda: lag_of_flood(worker) == 0)


def test_a_record_waits_for_those_before_it_in_its_partition(bench, monkeypatch):
    """Its tenant may go again just between the two: taken before the other, it would count that one's offset as received."""
    worker = bench(**TENANTS)
    quotas = worker.loop.admission.quotas
    verdicts = iter([True])
    monkeypatch.setattr(quotas, "blocks", lambda *_: next(verdicts, False))
    names = [f"f{number}" for number in range(6)]
    for name in names:
        publish_as_flood(worker, name, max_tokens=3)
    worker.run_until_closed(*names)
    assert {type(worker.closing(name)) for name in names} == {End}
    worker.run_until(lambda: lag_of_flood(worker) == 0)
    assert not worker.loop.intake._aside


def test_what_was_set_aside_under_an_earlier_epoch_is_left_to_the_log(bench):
    """The partition went and came back meanwhile: whoever owns it fetches them again, so none is answered from here, nor counted as done."""
    worker = exhausted(bench)
    names = [f"f{number}" for number in range(20)]
    for name in names:
        publish_as_flood(worker, name, max_tokens=3)
    worker.run_until(lambda: bool(worker.loop.intake._aside))
    aside = worker.loop.intake._aside
    left = [record.key.decode() for record, _, _ in aside]
    assert left
    aside.extend([(record, arrival, epoch - 1) for record, arrival, epoch in (aside.popleft() for _ in range(len(aside)))])
    worker.run_until(lambda: not aside)
    worker.run_until_closed(*(name for name in names if name not in left))
    assert not any(worker.events(name) for name in left)
    assert lag_of_flood(worker) == len(left)


def test_a_refusal_closes_a_stream_that_another_worker_may_have_begun(bench):
    """It has an attempt of its own, since readers of an earlier attempt would not take it otherwise."""
    worker = bench(rate_limits={"requests_per_minute": 1})
    worker.publish("first", prompt="x", max_tokens=2)
    worker.publish("second", prompt="x", max_tokens=2)
    worker.run_until_closed("first", "second")
    (refused,) = [name for name in ("first", "second") if isinstance(worker.closing(name), Error)]
    (at, begin), (_, error) = worker.events(refused)
    assert isinstance(begin, Begin)
    assert error.attempt == at


def test_a_request_without_a_stream_is_refused_in_its_line(bench):
    """Status 429, and the time in a header."""
    worker = bench(rate_limits={"requests_per_minute": 1})
    worker.publish("a", prompt="x", max_tokens=2, stream=False)
    worker.publish("b", prompt="x", max_tokens=2, stream=False)
    worker.run_until(lambda: len(worker.results()) == 2)
    (line,) = [line for line in worker.results().values() if line["error"]]
    assert (line["error"]["code"], line["response"]["status_code"]) == ("rate_limited", 429)
    record = next(r for r in worker.records if r.key == line["custom_id"].encode())
    assert int(dict(record.headers)["retry_after_ms"]) > 50_000


def test_unused_tokens_come_back_when_a_request_has_ended(bench):
    """Of 100 tokens a request reserves 91 and uses 6: the next one goes once it has ended, and so would many."""
    worker = bench(rate_limits={"tokens_per_minute": 100})
    for name in "abcd":
        worker.publish(name, prompt="x", max_tokens=90, stop_token_ids=list(range(1, 1024)))
        worker.run_until_closed(name)
        assert isinstance(worker.closing(name), End)


def test_tokens_that_were_written_are_charged(bench):
    """A request of 100 tokens leaves nothing for the next."""
    worker = bench(rate_limits={"tokens_per_minute": 100})
    worker.publish("a", prompt="x", max_tokens=99, ignore_eos=True)
    worker.run_until_closed("a")
    worker.publish("b", prompt="x", max_tokens=99, ignore_eos=True)
    worker.run_until_closed("b")
    assert isinstance(worker.closing("a"), End)
    assert worker.closing("b").code == "rate_limited"


def test_a_request_that_is_handed_back_is_charged_to_whoever_answers_it(bench):
    """Both requests of the minute are taken; when the waiting one goes back to the log, one is free."""
    worker = bench(FakeEngine(max_sequences=1), rate_limits={"requests_per_minute": 2})
    worker.publish("runs", prompt="x", key="k", max_tokens=4_000, ignore_eos=True)
    worker.publish("waits", prompt="y", key="k", max_tokens=4_000, ignore_eos=True)
    worker.run_until(lambda: bool(worker.tokens("runs")))
    quotas = worker.loop.admission.quotas
    assert quotas.blocked("default", time.monotonic()) is not None
    worker.loop.answers.hand_back(worker.loop.assignments.partitions, unstarted_only=True)
    assert quotas.blocked("default", time.monotonic()) is None


def test_a_twin_in_the_same_poll_is_not_charged_twice(bench):
    """Two records of one request, taken together: one reservation, one answer, and both offsets done."""
    worker = bench(rate_limits={"requests_per_minute": 2})
    for _ in range(2):
        worker.publish("a", prompt="x", max_tokens=3, ignore_eos=True)
    worker.publish("b", prompt="x", max_tokens=3, ignore_eos=True)
    worker.run_until_closed("a", "b")
    assert all(isinstance(worker.closing(name), End) for name in "ab")
    worker.run_until(lambda: worker.lag() == 0)


def test_a_tenant_without_a_topic_of_its_own_is_the_default(bench):
    """The default's rate holds for it."""
    worker = bench(rate_limits={"tenants": {"default": {"requests_per_minute": 1}}}, **TENANTS)
    worker.transport.create([TopicSpec(name=FLOOD, partitions=1)])
    for name in "ab":
        worker.publish(name, prompt="x", max_tokens=2)
        publish_as_flood(worker, f"f{name}", max_tokens=2)
    worker.run_until_closed("a", "b", "fa", "fb")
    assert [type(worker.closing(name)).__name__ for name in ("fa", "fb")] == ["End", "End"]
    assert sorted(type(worker.closing(name)).__name__ for name in "ab") == ["End", "Error"]
