"""The cache of answers by itself: bytes, age, order, and what makes a key."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.engine.base import StepOutput
from pipeline.engine.fake import FakeEngine
from pipeline.response_cache import Recording, ResponseCache, Stored, cache_key
from schemas.events import FinishReason, Usage
from schemas.record import Origin, ReplyAddress
from schemas.request import Endpoint, Request, parse_body

USAGE = Usage(prompt_tokens=3, completion_tokens=2)


def request(endpoint: Endpoint, **body: Any) -> Request:
    """A request as it comes in."""
    reply = ReplyAddress(custom_id="c", correlation_id=None)
    body = {"model": "m"} | body
    return Request(custom_id="c", endpoint=endpoint, body=parse_body(endpoint, body), origin=Origin("t", 0, 0), reply=reply, timestamp_ms=0)


def stored(text: str = "x", at_s: float = 0.0) -> Stored:
    """An answer of that text."""
    recording = Recording(b"")
    recording.take(StepOutput(key=0, token_ids=(1, 2), text=text, finish_reason=FinishReason.STOP))
    return recording.finish(USAGE, at_s)


def test_the_answer_used_longest_ago_goes_first():
    """Room for two and a half: of three the one that was not looked up is gone, and the bytes add up."""
    size_bytes = stored("x" * 10_000).size_bytes()
    cache = ResponseCache(max_bytes=int(size_bytes * 8.5), max_age_s=60.0)
    for number in range(8):
        cache.put(bytes([number]), stored("x" * 10_000))
    assert cache.get(b"\0", 1.0) is not None
    cache.put(b"new", stored("x" * 10_000))
    assert (len(cache), cache.size_bytes) == (8, 8 * size_bytes)
    assert cache.get(b"\1", 1.0) is None
    assert cache.get(b"\0", 1.0) is not None


def test_an_answer_is_good_for_its_age_and_a_later_one_takes_its_place():
    """A minute old is good, older is gone; the same key never counts twice."""
    cache = ResponseCache(max_bytes=100_000, max_age_s=60.0)
    cache.put(b"k", stored("old", at_s=0.0))
    cache.put(b"k", stored("new", at_s=10.0))
    found = cache.get(b"k", 70.0)
    assert found is not None
    assert next(found.outputs(7)).text == "new"
    assert cache.get(b"k", 70.1) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_an_answer_too_large_for_the_cache_is_not_kept():
    """It would push out everything else."""
    cache = ResponseCache(max_bytes=10_000, max_age_s=60.0)
    cache.put(b"small", stored())
    cache.put(b"large", stored("x" * 5_000))
    assert (cache.get(b"large", 0.0), len(cache)) == (None, 1)


def test_a_recording_puts_the_pieces_together_and_starts_over_with_the_engine():
    """Pieces of two choices, in any order; what came before a restart is gone; log-probabilities survive."""
    recording = Recording(b"")
    recording.take(StepOutput(key=0, index=0, token_ids=(9,), text="gone"))
    recording.restart()
    for piece in (
        StepOutput(key=0, index=1, token_ids=(1,), text="b", logprobs={"content": [1]}),
        StepOutput(key=0, index=0, token_ids=(3,), text="a", finish_reason=FinishReason.STOP),
        StepOutput(key=0, index=1, token_ids=(2,), text="c", logprobs={"content": [2]}, finish_reason=FinishReason.LENGTH),
    ):
        recording.take(piece)
    first, second = recording.finish(USAGE, 0.0).outputs(5)
    assert (first.key, first.index, first.text, first.token_ids, first.finish_reason) == (5, 0, "a", (3,), FinishReason.STOP)
    assert (second.text, second.token_ids, second.logprobs) == ("bc", (1, 2), {"content": [1, 2]})


def test_what_an_entry_weighs_grows_with_what_it_holds():
    """A thousand token ids are eight thousand bytes."""
    recording = Recording(b"")
    recording.take(StepOutput(key=0, token_ids=tuple(range(1_000)), finish_reason=FinishReason.STOP))
    assert recording.finish(USAGE, 0.0).size_bytes() - stored("").size_bytes() == pytest.approx(8_000, abs=1_000)


def test_a_key_covers_tenant_model_endpoint_and_body():
    """Another of each is another key; what the model does not hear changes nothing; a model elsewhere has none."""
    info = FakeEngine("m").info
    ask = request(Endpoint.COMPLETIONS, prompt="x", temperature=0)
    key = cache_key(ask, "a", info)
    assert key == cache_key(request(Endpoint.COMPLETIONS, prompt="x", temperature=0, top_p=0.4, seed=5, stream=True, user="u"), "a", info)
    others = [
        cache_key(ask, "b", info),
        cache_key(ask, "a", replace(info, revision="r2")),
        cache_key(ask, "a", replace(info, dtype="bfloat16")),
        cache_key(request(Endpoint.CHAT, messages=[{"role": "user", "content": "x"}], temperature=0), "a", info),
        cache_key(request(Endpoint.COMPLETIONS, prompt=[7], temperature=0), "a", info),
    ]
    assert len({key, *others}) == 6
    assert cache_key(ask, "a", replace(info, device="remote")) is None
    assert cache_key(request(Endpoint.COMPLETIONS, prompt="x"), "a", info) is None
