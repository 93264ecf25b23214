"""What a request gets: text, ends, log-probabilities, and faults that are its own."""

import math

import pytest
import torch
from transformers import GenerationConfig

from pipeline.engine.detokenizer import ByteDetokenizer
from pipeline.scheduling.sequence import Lane
from pipeline.settings import EngineSettings
from schemas.errors import EngineError
from schemas.events import FinishReason
from tests.engine.faults import Fault, network_of
from tests.engine.serving import chat, completion, engine_of, ids_of, serve
from tests.engine.tiny_models import VOCABULARY, continued_by_transformers, tiny_model
from tests.engine.tiny_tokenizers import byte_level

PROMPT = [5, 6, 7, 8]


@pytest.fixture
def mute(llama):
    """A fresh engine without a tokenizer."""
    return engine_of(llama)


@pytest.fixture(scope="module")
def speaking(speaker):
    """An engine with a tokenizer."""
    return engine_of(speaker, byte_level())


def only(answers):
    """The one answer there is."""
    (answer,) = answers.values()
    return answer


def plain(llama, tokens: int) -> list[int]:
    """What the model says if nothing stops it."""
    return continued_by_transformers(llama, PROMPT, tokens)


def test_text_is_the_decoding_of_the_ids(speaking):
    """Chat and completion, streamed a token at a time."""
    for asked in (chat("water", max_tokens=30), completion("water", max_tokens=30)):
        answer = only(serve(speaking, [asked]))
        assert len(answer.token_ids) == 30
        assert len(answer.pieces) == 30
        assert answer.text == byte_level().decode(answer.token_ids, skip_special_tokens=True)
        assert answer.finish_reason is FinishReason.LENGTH


def test_a_stop_string_across_tokens_cuts_the_text_before_it(speaking):
    """Wherever it falls within and across tokens: the text ends before it, the ids with the token that completes it."""
    body = {"max_tokens": 30, "logit_bias": _no_broken_characters()}
    whole = only(serve(speaking, [completion("water", **body)]))
    text = whole.text
    stops = [text[start : start + 4] for start in range(0, len(text) - 4, 3)]
    answers = serve(speaking, [completion("water", stop=[stop], **body) for stop in stops])
    for key, stop in enumerate(stops):
        answer = answers[key, 0]
        assert answer.text == text[: text.index(stop)]
        assert answer.finish_reason is FinishReason.STOP
        assert answer.token_ids == whole.token_ids[: len(answer.token_ids)]
        so_far = byte_level().decode(answer.token_ids)
        assert stop in so_far
        assert stop not in byte_level().decode(answer.token_ids[:-1])


def test_text_that_only_begins_a_stop_string_is_shown_in_the_end(speaking):
    """Held back while it could still become one, and given up when the output ends."""
    whole = only(serve(speaking, [completion("water", max_tokens=12, logit_bias=_no_broken_characters())]))
    stop = whole.text[-3:] + "never"
    answer = only(serve(speaking, [completion("water", max_tokens=12, stop=stop, logit_bias=_no_broken_characters())]))
    assert answer.text == whole.text
    assert answer.finish_reason is FinishReason.LENGTH


def _no_broken_characters() -> dict[str, float]:
    """Biases against byte tokens that are not characters by themselves."""
    vocabulary = byte_level().get_vocab()
    return {str(i): -100 for piece, i in vocabulary.items() if "\ufffd" in byte_level().decode([i]) or i < 3 or piece == "<tool>"}


def test_end_tokens_are_a_set(llama):
    """Generation config, config and request each name some; whichever comes first ends the output, counted and without text."""
    said = plain(llama, 12)
    distinct = list(dict.fromkeys(said))
    assert len(distinct) >= 4
    model = tiny_model("llama", eos_token_id=distinct[2])
    model.generation_config = GenerationConfig(eos_token_id=[distinct[3], 77])
    engine = engine_of(model)
    for body, end in (({}, distinct[2]), ({"stop_token_ids": [distinct[1]]}, distinct[1])):
        answer = only(serve(engine, [completion(PROMPT, max_tokens=12, **body)]))
        assert answer.token_ids == said[: said.index(end) + 1]
        assert answer.finish_reason is FinishReason.STOP
    model.config.eos_token_id = None
    assert ids_of(engine_of(model), [completion(PROMPT, max_tokens=12)]) == [said[: said.index(distinct[3]) + 1]]
    assert ids_of(engine, [completion(PROMPT, max_tokens=12, ignore_eos=True)]) == [said]


def test_the_tokenizers_end_token_ends_and_has_no_text(speaker):
    """It is among the ids, for usage, and not in the text."""
    tokenizer = byte_level()
    answer = only(serve(engine_of(speaker, tokenizer), [completion("water", max_tokens=5, logit_bias={str(tokenizer.eos_token_id): 100})]))
    assert answer.token_ids == [tokenizer.eos_token_id]
    assert answer.text == ""
    assert answer.finish_reason is FinishReason.STOP


def test_min_tokens_holds_off_every_end(speaking):
    """Neither end token nor stop string ends an output before it; after it both do."""
    bias = {str(byte_level().eos_token_id): 100}
    answer = only(serve(speaking, [completion("water", max_tokens=9, min_tokens=6, logit_bias=bias)]))
    assert len(answer.token_ids) == 7
    assert answer.token_ids[-1] == byte_level().eos_token_id
    body = {"max_tokens": 20, "logit_bias": _no_broken_characters()}
    whole = only(serve(speaking, [completion("water", **body)]))
    first = whole.text[0]
    stopped = only(serve(speaking, [completion("water", stop=first, **body)]))
    assert (stopped.text, len(stopped.token_ids)) == ("", 1)
    later = only(serve(speaking, [completion("water", stop=first, min_tokens=4, **body)]))
    assert later.token_ids[:4] == whole.token_ids[:4]
    assert len(later.token_ids) > 4 or later.finish_reason is FinishReason.LENGTH


def test_choices_are_drawn_apart_and_numbered(mute):
    """`n` gives as many answers, each whole; the request's slots are freed with the last."""
    answers = serve(mute, [completion(PROMPT, n=3, max_tokens=6, temperature=1.5, seed=1)])
    assert set(answers) == {(0, 0), (0, 1), (0, 2)}
    assert len({tuple(answer.token_ids) for answer in answers.values()}) == 3
    assert all(len(answer.token_ids) == 6 for answer in answers.values())
    assert mute.stats().running == 0


def test_completion_logprobs_have_openais_form(speaking):
    """A token, its log-probability, the best by text, and where it starts in the output."""
    answer = only(serve(speaking, [completion("water", max_tokens=8, logprobs=3)]))
    assert len(answer.logprobs) == 8
    for i, (report, piece) in enumerate(zip(answer.logprobs, answer.token_ids, strict=True)):
        assert set(report) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
        (token,), (logprob,), (top,), (at,) = (report[name] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"))
        assert token == byte_level().decode([piece])
        assert logprob == max(top.values()) == top[token]
        assert at == len("".join(answer.pieces[:i]))
    everything = only(serve(speaking, [completion("water", max_tokens=1, logprobs=20)])).logprobs[0]["top_logprobs"][0]
    assert 0.0 < sum(map(math.exp, everything.values())) <= 1.0 + 1e-5


def test_chat_logprobs_have_openais_form(speaking):
    """Token, log-probability and bytes, for the chosen and for the best, in falling order."""
    answer = only(serve(speaking, [chat("water", max_tokens=6, logprobs=True, top_logprobs=2, temperature=1, seed=3)]))
    for report, piece in zip(answer.logprobs, answer.token_ids, strict=True):
        assert set(report) == {"content", "refusal"}
        (entry,) = report["content"]
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
        assert entry["token"] == byte_level().decode([piece])
        assert [set(best) for best in entry["top_logprobs"]] == [{"token", "logprob", "bytes"}] * 2
        assert entry["top_logprobs"][0]["logprob"] >= entry["top_logprobs"][1]["logprob"]
        assert entry["logprob"] <= entry["top_logprobs"][0]["logprob"]
    none = only(serve(speaking, [chat("water", max_tokens=2, logprobs=True)]))
    assert none.logprobs[0]["content"][0]["top_logprobs"] == []


@pytest.fixture(scope="module")
def five(llama):
    """Prompts, and what each gets alone."""
    prompts = [[i + 1, i + 11, i + 21, i + 31] for i in range(5)]
    return prompts, [continued_by_transformers(llama, prompt, 6) for prompt in prompts]


@pytest.mark.parametrize("culprit", range(5))
@pytest.mark.parametrize("when", ["prefill", "decode"])
def test_a_fault_of_one_sequence_fails_that_one_alone(llama, five, culprit, when, capfd):
    """The batch is halved until the culprit is alone; every neighbour's output is what it would have been, and nothing leaks."""
    prompts, expected = five
    token = prompts[culprit][2] if when == "prefill" else 95
    requests = [completion(prompt, max_tokens=6) for prompt in prompts]
    if when == "decode":
        assert not any(token in answer for answer in expected)
        requests[culprit] = completion(prompts[culprit], max_tokens=6, logit_bias={"95": 100})
    engine = engine_of(llama, settings=EngineSettings(max_sequences=8, token_budget=64, block_tokens=4))
    with Fault(engine, token, ValueError("secret words")):
        answers = serve(engine, requests)
    for key, answer in enumerate(expected):
        if key != culprit:
            assert answers[key, 0].token_ids == answer
            assert answers[key, 0].error is None
    failed = answers[culprit, 0]
    assert isinstance(failed.error, EngineError)
    assert failed.error.retryable
    assert "ValueError" in str(failed.error)
    assert "secret" not in str(failed.error)
    assert engine.stats().kv_blocks_used == 0
    assert capfd.readouterr().out.count("a sequence failed in the engine") == 1
    assert ids_of(engine, [completion(prompts[culprit], max_tokens=6)]) == [expected[culprit]], "the engine serves it again"


def test_all_choices_end_when_one_fails(llama):
    """A request fails as a whole, and others with several choices do not notice."""
    engine = engine_of(llama, settings=EngineSettings(max_sequences=8, token_budget=64))
    with Fault(engine, 50, RuntimeError("boom")):
        answers = serve(engine, [completion([50, 1], n=3, max_tokens=4), completion([1, 2], n=2, max_tokens=4)])
    assert [key for key, answer in answers.items() if answer.error] == [(0, 0)]
    assert [len(answers[1, i].token_ids) for i in range(2)] == [4, 4]
    assert not engine.has_work()


def test_output_that_is_not_a_number_fails_its_own_request_and_poisons_no_block(llama):
    """NaN spreads through a sequence's keys and values, not to its neighbours, nor to whoever gets its blocks."""
    settings = EngineSettings(max_sequences=3, token_budget=64, block_tokens=4, context_tokens=24, kv_cache_mib=1)
    prompts = [[40, 41, 42, 43, 44], [1, 2, 3], [4, 5, 6, 7, 8, 9, 10]]
    expected = [continued_by_transformers(llama, prompt, 12) for prompt in prompts]
    engine = engine_of(llama, settings=settings)
    embeddings = network_of(engine).model.embed_tokens.weight
    embedded = embeddings[40].clone()
    try:
        with torch.no_grad():
            embeddings[40] = torch.nan
        answers = serve(engine, [completion(prompt, max_tokens=12) for prompt in prompts])
    finally:
        with torch.no_grad():
            embeddings[40] = embedded
    assert isinstance(answers[0, 0].error, EngineError)
    assert [answers[key, 0].token_ids for key in (1, 2)] == expected[1:]
    assert ids_of(engine, [completion(prompt, max_tokens=12) for prompt in prompts]) == expected


def test_output_that_cannot_be_spelt_fails_its_own_request(speaker, monkeypatch):
    """A tokenizer that stumbles over one output is that request's fault; the next one is served."""
    engine = engine_of(speaker, byte_level())
    feed = ByteDetokenizer.feed
    monkeypatch.setattr(ByteDetokenizer, "feed", lambda self, token: feed(self, token) if token != 40 else 1 / 0)
    answers = serve(engine, [completion("water", max_tokens=3, logit_bias={"40": 100}), completion("water", max_tokens=3, logit_bias={"41": 100})])
    assert "ZeroDivisionError" in str(answers[0, 0].error)
    assert answers[1, 0].token_ids == [41, 41, 41]
    assert engine.stats().kv_blocks_used == 0


def test_a_broken_device_is_raised(mute):
    """A sticky fault is not one request's: the worker must end, so that its log is replayed elsewhere."""
    mute.add(0, mute.prepare(completion(PROMPT)), Lane.DEFAULT, 0.0)
    with Fault(mute, PROMPT[0], torch.AcceleratorError("device-side assert")), pytest.raises(torch.AcceleratorError):
        mute.step(0.0)


def test_warming_up_leaves_nothing_behind(mute, llama):
    """Afterwards the engine is empty and serves as before."""
    mute.warm_up()
    stats = mute.stats()
    assert (stats.running, stats.waiting, stats.kv_blocks_used) == (0, 0, 0)
    assert ids_of(mute, [completion(PROMPT, max_tokens=5)]) == [plain(llama, 5)]


def test_a_model_that_fails_warming_up_is_not_served(mute):
    """The fault is raised where the model is loaded, not at the first request."""
    with Fault(mute, 0, RuntimeError("boom")), pytest.raises(EngineError):
        mute.warm_up()


def test_a_context_of_a_few_tokens_is_served(llama):
    """Too short to prove anything in advance, and still right."""
    engine = engine_of(llama, settings=EngineSettings(max_sequences=2, context_tokens=4, block_tokens=4))
    engine.warm_up()
    assert ids_of(engine, [completion(PROMPT[:2], max_tokens=9)]) == [continued_by_transformers(llama, PROMPT[:2], 2)]


def test_the_gauges_follow(mute):
    """Running, waiting and blocks are what the scheduler holds; the batch is the last step's."""
    for key in range(6):
        mute.add(key, mute.prepare(completion(PROMPT, max_tokens=4)), Lane.DEFAULT, 0.0)
    assert (mute.stats().waiting, mute.stats().waiting_tokens) == (6, 24)
    mute.step(0.0)
    stats = mute.stats()
    assert (stats.running, stats.waiting, stats.batch_sequences, stats.batch_tokens) == (4, 2, 4, 16)
    assert stats.kv_blocks_used == 4
    assert stats.kv_blocks_total == 4 * 32


def test_the_engine_says_what_it_serves(mute, llama):
    """Name, shape and limits of the model."""
    info = mute.info
    assert (info.name, info.source, info.architecture, info.dtype, info.device) == ("tiny", "tiny", "LlamaForCausalLM", "float32", "cpu")
    assert info.vocabulary == VOCABULARY
    assert info.context_tokens == 128
    assert info.parameters == sum(parameter.numel() for parameter in llama.parameters())


def test_closing_lets_go_of_the_model(llama):
    """Weights and cache are the engine's to free."""
    engine = engine_of(llama)
    engine.close()
    with pytest.raises(AttributeError):
        engine.warm_up()
