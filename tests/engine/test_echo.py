"""The prompt at the head of a completion, and how likely its tokens were."""

import math

import pytest
import torch

from pipeline.engine.attention.hook import NAME
from pipeline.engine.fake import FakeEngine
from pipeline.settings import EngineSettings
from schemas.errors import UnsupportedField
from schemas.results import join_logprobs
from tests.engine.serving import SMALL, completion, engine_of, serve
from tests.engine.tiny_models import VOCABULARY
from tests.engine.tiny_tokenizers import byte_level

PROMPT = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]


@pytest.fixture(scope="module")
def speaking(speaker):
    """An engine with a tokenizer."""
    return engine_of(speaker, byte_level())


def reference_logprobs(model, token_ids: list[int]) -> list[float]:
    """Log-probability of each token but the first, in one pass."""
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            logprobs = model(torch.tensor([token_ids])).logits[0].log_softmax(-1)
    finally:
        model.set_attn_implementation(NAME)
    return [float(logprobs[place, token]) for place, token in enumerate(token_ids[1:])]


def joined(answer) -> dict[str, list]:
    """The logprobs objects of all steps, as the worker joins them."""
    whole = None
    for part in answer.logprobs:
        whole = join_logprobs(whole, part)
    return whole


def test_the_text_begins_with_the_prompt(speaking):
    """As it was sent, or as its ids read; ids and usage are those of the output."""
    tokenizer = byte_level()
    plain = serve(speaking, [completion("water gate", max_tokens=5)])[0, 0]
    echoed = serve(speaking, [completion("water gate", max_tokens=5, echo=True)])[0, 0]
    assert echoed.text == "water gate" + plain.text
    assert echoed.token_ids == plain.token_ids
    ids = tokenizer.encode("gate")
    of_ids = serve(speaking, [completion(ids, max_tokens=3, echo=True)])[0, 0]
    assert of_ids.text.startswith(tokenizer.decode(ids))


def test_stop_strings_are_not_looked_for_in_the_prompt(speaking):
    """They end the output, not the echo."""
    answer = serve(speaking, [completion("water", max_tokens=5, echo=True, stop="ate")])[0, 0]
    assert answer.text.startswith("water")
    assert answer.token_ids


def test_logprobs_of_the_prompt_have_openais_form(speaking):
    """None for the first token, then one each; offsets run over the whole text, and tokens spell it out."""
    answer = serve(speaking, [completion("water gate", max_tokens=4, echo=True, logprobs=2)])[0, 0]
    report = joined(answer)
    prompt_tokens = len(byte_level().encode("water gate"))
    assert {name: len(values) for name, values in report.items()} == dict.fromkeys(report, prompt_tokens + 4)
    assert report["token_logprobs"][0] is report["top_logprobs"][0] is None
    assert all(value < 0 for value in report["token_logprobs"][1:])
    assert all(1 <= len(best) <= 3 for best in report["top_logprobs"][1:])
    starts = report["text_offset"]
    assert (starts[0], starts[prompt_tokens]) == (0, len("water gate"))
    assert starts == sorted(starts)
    for token, start, end in zip(report["tokens"][:prompt_tokens], starts, starts[1:], strict=False):
        assert answer.text[start:end] == token


@pytest.mark.parametrize("token_budget", [16, 1_024])
@pytest.mark.parametrize("choices", [1, 3])
def test_logprobs_of_the_prompt_are_the_models(llama, token_budget, choices):
    """Whatever the chunks, though the prompt is in the cache, through preemption, for every choice, beside others."""
    engine = engine_of(llama, settings=EngineSettings(max_sequences=4, token_budget=token_budget, block_tokens=4, kv_cache_mib=1, threads=1))
    long = [i % VOCABULARY for i in range(7, 97)]
    expected = {0: reference_logprobs(llama, long), 1: reference_logprobs(llama, PROMPT)}
    serve(engine, [completion(long, max_tokens=1)])

    def preempt(step: int) -> None:
        if step in (2, 5):
            engine._scheduler._preempt(engine._scheduler.running[-1])

    requests = [completion(prompt, max_tokens=6, n=choices, echo=True, logprobs=0) for prompt in (long, PROMPT)]
    answers = serve(engine, [*requests, completion(PROMPT, max_tokens=9)], between=preempt)
    for (key, _), answer in answers.items():
        if key in expected:
            scored = joined(answer)["token_logprobs"]
            assert scored[0] is None
            assert scored[1 : len(expected[key]) + 1] == pytest.approx(expected[key], abs=1e-4)
            assert len(scored) == len(expected[key]) + 1 + 6
    assert {key for key, _ in answers} == {0, 1, 2}


def test_alternatives_are_the_same_in_slices(llama, monkeypatch):
    """Wherever the slices end, within a prompt and between two."""
    requests = [completion(prompt, max_tokens=2, echo=True, logprobs=wanted) for prompt, wanted in ((PROMPT, 2), (PROMPT[:6], 0), (PROMPT[3:], 3))]
    whole = serve(engine_of(llama), requests)
    monkeypatch.setattr("pipeline.engine.loading.places_at_a_time", lambda _: 3)
    for key, answer in serve(engine_of(llama, settings=SMALL.model_copy(update={"token_budget": 64})), requests).items():
        got, expected = joined(answer), joined(whole[key])
        assert got["token_logprobs"][1:] == pytest.approx(expected["token_logprobs"][1:], abs=1e-4)
        assert [best and best.keys() for best in got["top_logprobs"]] == [best and best.keys() for best in expected["top_logprobs"]]


def test_without_a_tokenizer_ids_stand_for_themselves(llama):
    """There is no text, and the tokens go by their numbers."""
    answer = serve(engine_of(llama), [completion([5, 6], max_tokens=1, echo=True, logprobs=1)])[0, 0]
    assert answer.text == ""
    assert joined(answer)["tokens"][:2] == ["token_id:5", "token_id:6"]
    assert not math.isnan(joined(answer)["token_logprobs"][1])


def test_where_prompts_cannot_be_scored_the_request_is_refused_by_name(llama, monkeypatch):
    """The text alone is echoed all the same."""
    engine = engine_of(llama)
    monkeypatch.setattr(engine._preparation, "_scores_prompts", False)
    with pytest.raises(UnsupportedField) as refusal:
        engine.prepare(completion([1, 2], echo=True, logprobs=1))
    assert refusal.value.param == "echo"
    assert engine.prepare(completion([1, 2], echo=True)).work.echo == ""


def test_the_fake_engine_echoes_as_well():
    """Text as it was sent, ids by their words."""
    for prompt, opening in (("over the mill", "over the mill"), ([1, 2], "gate river")):
        answer = serve(FakeEngine(), [completion(prompt, max_tokens=2, echo=True)])[0, 0]
        plain = serve(FakeEngine(), [completion(prompt, max_tokens=2)])[0, 0]
        assert answer.text == opening + plain.text
