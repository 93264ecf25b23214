"""The engine for other people's tests."""

import subprocess
import sys

import pytest

from pipeline.engine.base import Engine
from pipeline.engine.fake import VOCABULARY, FakeEngine
from schemas.errors import InvalidToken, PromptTooLong, UnsupportedField
from schemas.events import FinishReason
from tests.engine.serving import chat, completion, serve


def small(max_sequences: int = 4, token_budget: int = 1_024) -> FakeEngine:
    """An engine of few blocks: all of them are counted after each step."""
    return FakeEngine(max_sequences=max_sequences, token_budget=token_budget, context_tokens=128)


@pytest.mark.integration
def test_it_needs_no_tensor_library():
    """Whoever tests with it waits for no import of torch or transformers."""
    code = "import sys, pipeline.engine.fake; sys.exit(bool({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_speaks_the_protocol():
    """It stands wherever an engine does."""
    engine: Engine = FakeEngine()
    engine.warm_up()
    assert engine.info.name == "fake"
    engine.close()


def test_answers_follow_from_the_prompt_alone():
    """The same alone and in a batch, another prompt or choice gets another answer."""
    requests = [chat("one", n=2), chat("two"), completion("one", max_tokens=30)]
    together = serve(small(max_sequences=2, token_budget=3), requests)
    for key, asked in enumerate(requests):
        alone = serve(small(), [asked])
        for index in range(asked.body.n):
            assert alone[0, index].token_ids == together[key, index].token_ids
            assert alone[0, index].text == together[key, index].text
    assert len({tuple(answer.token_ids) for answer in together.values()}) == 4


def test_answers_end_by_themselves_or_at_the_limit():
    """After some words with an end token that has no text, or at max_tokens; ignore_eos and min_tokens put the end off."""
    natural = serve(small(), [chat("hello")])[0, 0]
    assert natural.finish_reason is FinishReason.STOP
    assert natural.pieces[-1] == ""
    assert natural.text.split() == natural.text.split(" ")
    assert len(natural.text.split()) == len(natural.token_ids) - 1
    assert serve(small(), [chat("hello", max_tokens=2)])[0, 0].finish_reason is FinishReason.LENGTH
    longer = len(natural.token_ids) + 20
    for body in ({"ignore_eos": True, "max_tokens": longer}, {"min_tokens": longer, "max_tokens": longer}):
        assert len(serve(small(), [chat("hello", **body)])[0, 0].token_ids) == longer


def test_stop_strings_and_stop_tokens_end_an_answer():
    """As in any engine: the text ends before the stop string, the token is counted."""
    whole = serve(small(), [chat("hello")])[0, 0]
    third = whole.text.split()[2]
    stopped = serve(small(), [chat("hello", stop=third)])[0, 0]
    assert stopped.text == whole.text[: whole.text.index(third)]
    assert stopped.finish_reason is FinishReason.STOP
    by_token = serve(small(), [chat("hello", stop_token_ids=[whole.token_ids[2]])])[0, 0]
    assert by_token.token_ids == whole.token_ids[:3]
    assert by_token.finish_reason is FinishReason.STOP


def test_it_refuses_what_it_does_not_have():
    """Log-probabilities by name, prompts beyond its context, ids beyond its vocabulary."""
    engine = FakeEngine(context_tokens=8)
    with pytest.raises(UnsupportedField) as refusal:
        engine.prepare(chat("hello", logprobs=True))
    assert refusal.value.param == "logprobs"
    with pytest.raises(PromptTooLong):
        engine.prepare(completion("a b c d e f g h"))
    with pytest.raises(InvalidToken):
        engine.prepare(completion([VOCABULARY]))
    assert engine.prepare(completion([1, 2], max_tokens=99)).max_output_tokens == 6


def test_cancels_and_gauges():
    """A cancelled request is gone before the next step, and the gauges say what is left."""
    engine = FakeEngine(max_sequences=1)
    for key in range(2):
        engine.add(key, engine.prepare(chat("hello")), lane=1, now_s=0.0)
    engine.step(0.0)
    assert (engine.stats().running, engine.stats().waiting) == (1, 1)
    engine.cancel(0)
    engine.cancel(7)
    assert [output.key for output in engine.step(0.0)] == [1]
    engine.cancel(1)
    assert not engine.has_work()
    assert engine.stats().kv_blocks_used == 0


def test_a_step_takes_the_time_it_is_told(monkeypatch):
    """For tests of slow models."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    engine = FakeEngine(step_s=0.25)
    engine.add(0, engine.prepare(completion("a", max_tokens=1)), lane=1, now_s=0.0)
    engine.step(0.0)
    assert slept == [0.25]
