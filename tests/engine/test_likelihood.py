"""How likely a given text is: the sum that one plain pass gives, however the text is cut."""

import copy
import math
from typing import Any

import pytest
import torch

from pipeline.engine.backbone import find_backbone
from pipeline.engine.base import Engine, Likelihood, StepOutput
from pipeline.engine.fake import FakeEngine
from pipeline.engine.loading import build_serial
from pipeline.scheduling.sequence import Lane
from pipeline.settings import EngineSettings, ModelSettings
from schemas.errors import EngineError, InvalidRequest, InvalidToken, PromptTooLong
from schemas.events import FinishReason
from tests.engine.faults import network_of
from tests.engine.pooling.tiny_encoders import pooling_engine, tiny_encoder
from tests.engine.serving import SMALL, begin_anew, completion, engine_of
from tests.engine.tiny_models import MIXTURE, VOCABULARY, continued_by_transformers, eager, tiny_model
from tests.engine.tiny_tokenizers import byte_level

KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {},
    "qwen3_moe": MIXTURE,
    "gemma3_text": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {},
}
TEXTS = [[(7 * i + 3 * text) % VOCABULARY for i in range(tokens)] for text, tokens in enumerate((61, 2, 128, 17, 16))]


def expected(model: Any, token_ids: list[int]) -> Likelihood:
    """The same by one forward pass of transformers."""
    with torch.inference_mode():
        logprobs = eager(model)(torch.tensor([token_ids])).logits[0, :-1].double().log_softmax(-1)
    return Likelihood(float(logprobs.gather(1, torch.tensor(token_ids[1:])[:, None]).sum()), len(token_ids) - 1)


def read(engine: Engine, *texts: Any, between: Any = None) -> dict[int, StepOutput]:
    """The last word on each text; each has one output only."""
    for key, text in enumerate(texts):
        engine.add(key, engine.prepare_likelihood(text), Lane.FLEX, 0.0)
    outputs: dict[int, StepOutput] = {}
    step = 0
    while engine.has_work():
        if between is not None:
            between(step)
        for output in engine.step(0.0):
            assert output.key not in outputs
            outputs[output.key] = output
        step += 1
    return outputs


def settings(token_budget: int) -> EngineSettings:
    """A cache that holds one long text and a few short ones."""
    return EngineSettings(max_sequences=4, token_budget=token_budget, block_tokens=4, kv_cache_mib=1, threads=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_as_likely_as_in_one_plain_pass(kind):
    """For every architecture and size of step, texts as long as the context among them, side by side, some read twice over after a preemption."""
    model = tiny_model(kind, **KINDS[kind])
    engine = engine_of(model, settings=settings(1_024))
    plain = [expected(model, text) for text in TEXTS]

    def preempt(step: int) -> None:
        if step in (1, 4) and engine._scheduler.running:
            engine._scheduler._preempt(engine._scheduler.running[-1])

    for token_budget in (16, 50, 1_024):
        begin_anew(engine, tokens=token_budget, sequences=4)
        outputs = read(engine, *TEXTS, between=preempt)
        for key, text in enumerate(TEXTS):
            likelihood = outputs[key].likelihood
            assert likelihood.token_count == plain[key].token_count == len(text) - 1
            assert likelihood.logprob_sum == pytest.approx(plain[key].logprob_sum, rel=1e-4)
            assert likelihood.perplexity == pytest.approx(math.exp(-plain[key].logprob_sum / plain[key].token_count), rel=1e-3)
            assert (outputs[key].finish_reason, outputs[key].token_ids) == (FinishReason.STOP, ())
        assert engine._scheduler.pool.used == 0


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "granite"])
def test_logits_come_in_slices_and_are_what_they_are_at_once(kind, monkeypatch):
    """Also where a model scales or caps what its head makes; the head never runs over more places than a slice has, beside those that are sampled."""
    monkeypatch.setattr("pipeline.engine.loading.places_at_a_time", lambda _: 7)
    model = tiny_model(kind, **({"final_logit_softcapping": 0.5} if kind == "gemma2" else {}))
    engine = engine_of(model, settings=settings(1_024))
    widths = widths_of_head(engine)
    outputs = read(engine, *TEXTS)
    assert max(widths) == 7
    assert sum(widths) == sum(len(text) - 1 for text in TEXTS)
    for key, text in enumerate(TEXTS):
        assert outputs[key].likelihood.logprob_sum == pytest.approx(expected(model, text).logprob_sum, rel=1e-4)


def widths_of_head(engine: Any) -> list[int]:
    """Notes over how many places the head runs, each time."""
    widths: list[int] = []
    network_of(engine).get_output_embeddings().register_forward_pre_hook(lambda _, arguments: widths.append(arguments[0].shape[-2]))
    return widths


@pytest.mark.parametrize("oddity", ["computes twice", "mixes places"])
def test_a_model_whose_head_does_not_run_by_itself_does_not_score(llama, oddity):
    """It generates all the same, and says what it cannot do."""
    model = copy.deepcopy(llama)
    forward = model.forward

    def odd(**arguments: Any) -> Any:
        output = forward(**arguments)
        if oddity == "computes twice":
            return forward(**arguments)
        output.logits = output.logits + output.logits.mean(1, keepdim=True)
        return output

    model.forward = odd
    assert find_backbone(llama) is not None
    assert find_backbone(model) is None


def test_texts_and_generations_share_steps(llama):
    """Neither disturbs the other, and prompts find nothing of what was only read."""
    engine = engine_of(llama, settings=settings(16))
    prompt = TEXTS[0][:30]
    engine.add(9, engine.prepare(completion(prompt, max_tokens=8)), Lane.DEFAULT, 0.0)
    said: list[int] = []
    for key, text in enumerate(TEXTS[:2]):
        engine.add(key, engine.prepare_likelihood(text), Lane.FLEX, 0.0)
    while engine.has_work():
        for output in engine.step(0.0):
            if output.key == 9:
                said += output.token_ids
            else:
                assert output.likelihood.logprob_sum == pytest.approx(expected(llama, TEXTS[output.key]).logprob_sum, rel=1e-4)
    assert said == continued_by_transformers(llama, prompt, 8)
    assert engine.stats().prefix_hit_tokens_total == 0


def test_text_is_tokenised_as_a_prompt_is(speaker):
    """Words or their ids: the same thing."""
    engine = engine_of(speaker, byte_level())
    text = "The water turns the wheel."
    ids = byte_level().encode(text)
    outputs = read(engine, text, ids)
    assert [outputs[key].likelihood.logprob_sum for key in range(2)] == pytest.approx([expected(speaker, ids).logprob_sum] * 2, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ([], InvalidRequest, "fewer than two tokens"),
        ([5], InvalidRequest, "fewer than two tokens"),
        ([5] * 129, PromptTooLong, "has 129 tokens; the model takes 128"),
        ([5, VOCABULARY], InvalidToken, "outside the vocabulary"),
        ([5, -1], InvalidToken, "outside the vocabulary"),
        ("water", InvalidRequest, "no tokenizer"),
    ],
)
def test_what_cannot_be_read_is_refused(llama, text, error, reason):
    """Before anything is computed."""
    with pytest.raises(error, match=reason) as refusal:
        engine_of(llama).prepare_likelihood(text)
    assert refusal.value.param == "prompt"


def test_models_that_cannot_tell_say_so():
    """An encoder, and a model that runs one sequence at a time."""
    mamba = tiny_model("mamba", state_size=8).float()
    mamba.set_attn_implementation("eager")
    for engine in (pooling_engine(tiny_encoder("bert")), build_serial(mamba, None, ModelSettings(name="tiny", source="tiny"), SMALL)):
        with pytest.raises(InvalidRequest, match=r"tell how likely") as refusal:
            engine.prepare_likelihood([1, 2, 3])
        assert refusal.value.param == "model"


def test_what_is_no_number_fails_its_text_alone(llama):
    """A broken text is an error of its own; its neighbour is scored as ever."""
    model = copy.deepcopy(llama)
    with torch.no_grad():
        model.get_input_embeddings().weight[90] = math.nan
    outputs = read(engine_of(model, settings=settings(1_024)), [5, 90, 7, 8], TEXTS[3])
    assert isinstance(outputs[0].error, EngineError)
    assert outputs[0].likelihood is None
    assert outputs[1].likelihood.logprob_sum == pytest.approx(expected(llama, TEXTS[3]).logprob_sum, rel=1e-4)


def test_a_cancelled_text_leaves_nothing_behind(llama):
    """In the middle of its reading."""
    engine = engine_of(llama, settings=settings(16))
    engine.add(0, engine.prepare_likelihood(TEXTS[2]), Lane.FLEX, 0.0)
    engine.step(0.0)
    engine.cancel(0)
    assert not engine.has_work()
    assert engine._scheduler.pool.used == 0


def test_an_impossible_text_has_infinite_perplexity():
    """It is no error."""
    assert Likelihood(-math.inf, 3).perplexity == Likelihood(-5_000.0, 2).perplexity == math.inf
    assert Likelihood(-math.log(8.0), 3).perplexity == pytest.approx(2.0)


def test_the_fake_engine_reads_too():
    """By the text alone, whatever runs beside it; and refuses as the real one does."""
    engine = FakeEngine(token_budget=16, context_tokens=64)
    outputs = read(engine, "over the mill and under", list(range(1, 60)), "over the mill and under")
    assert outputs[0].likelihood == outputs[2].likelihood
    assert outputs[0].likelihood.token_count == 4
    assert -4 * 58 <= outputs[1].likelihood.logprob_sum < 0
    for text, error in (("mill", InvalidRequest), ([1] * 65, PromptTooLong), ([1, 5_000], InvalidToken)):
        with pytest.raises(error):
            engine.prepare_likelihood(text)
