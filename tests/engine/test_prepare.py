"""What is wrong with a request is found before anything runs."""

import copy

import pytest
from tokenizers import normalizers

from pipeline.engine.fake import FakeEngine
from pipeline.settings import EngineSettings
from schemas.errors import InvalidRequest, InvalidToken, PromptTooLong, UnsupportedField
from schemas.request import Endpoint
from tests.engine.serving import chat, completion, engine_of, ids_of, request
from tests.engine.tiny_models import VOCABULARY, WIDE, tiny_model
from tests.engine.tiny_tokenizers import byte_level, sentencepiece_like


@pytest.fixture(scope="module")
def mute(llama):
    """An engine without a tokenizer, for a context of 128 tokens."""
    return engine_of(llama)


@pytest.fixture(scope="module")
def speaking(speaker):
    """An engine with a byte-level tokenizer and a chat template."""
    return engine_of(speaker, byte_level())


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [(Endpoint.EMBEDDINGS, {"input": "text"}), (Endpoint.SCORE, {"text_1": "a", "text_2": "b"})],
)
def test_an_endpoint_that_the_model_does_not_serve_is_refused(mute, endpoint, body):
    """A generative model says so, naming the endpoint."""
    for engine in (mute, FakeEngine()):
        with pytest.raises(InvalidRequest, match=f"does not serve {endpoint}") as refusal:
            engine.prepare(request(endpoint, **body))
        assert refusal.value.param == "url"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": [1, VOCABULARY]}, "prompt"),
        ({"prompt": [1, 2**40]}, "prompt"),
        ({"prompt": [1], "logit_bias": {str(VOCABULARY): 1}}, "logit_bias"),
        ({"prompt": [1], "stop_token_ids": [VOCABULARY]}, "stop_token_ids"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused_wherever_they_stand(mute, body, param):
    """The embedding's size counts, and the message does not repeat what was sent."""
    with pytest.raises(InvalidToken, match=f"0 to {VOCABULARY - 1}") as refusal:
        mute.prepare(completion(**body))
    assert (refusal.value.code, refusal.value.param) == ("invalid_token", param)


def test_a_prompt_must_leave_room_for_one_token(mute, speaking):
    """127 tokens fit a context of 128 and 128 do not, for either endpoint under its own field's name."""
    assert mute.prepare(completion([1] * 127)).max_output_tokens == 1
    with pytest.raises(PromptTooLong, match="has 128 tokens; the model takes 127") as refusal:
        mute.prepare(completion([1] * 128))
    assert refusal.value.param == "prompt"
    with pytest.raises(PromptTooLong) as refusal:
        speaking.prepare(chat("water " * 200))
    assert refusal.value.param == "messages"


def test_output_is_bounded_by_what_the_context_leaves(mute, speaking):
    """More than fits is cut, chat without a limit takes all that is left, completions take OpenAI's 16."""
    assert mute.prepare(completion([1] * 100, max_tokens=1_000)).max_output_tokens == 28
    assert mute.prepare(completion([1] * 100, max_tokens=5, n=3)).max_output_tokens == 15
    assert mute.prepare(completion([1] * 100)).max_output_tokens == 16
    job = speaking.prepare(chat("hello"))
    assert job.max_output_tokens == 128 - job.prompt_tokens
    assert job.choices == 1


def test_a_cache_smaller_than_the_context_bounds_requests():
    """No request is taken that could never fit the KV cache."""
    wide = tiny_model("llama", **WIDE | {"max_position_embeddings": 1_024})
    engine = engine_of(wide, settings=EngineSettings(block_tokens=8, kv_cache_mib=1))
    assert engine.info.context_tokens == 64
    with pytest.raises(PromptTooLong):
        engine.prepare(completion([1] * 64))
    assert [len(answer) for answer in ids_of(engine, [completion([1] * 40, max_tokens=500)])] == [24]


def test_without_a_tokenizer_only_token_ids_are_taken(mute):
    """Text, chats and stop strings are refused by name; ids are answered with ids and no text."""
    for refused, param in ((completion("text"), "prompt"), (chat("text"), "messages")):
        with pytest.raises(InvalidRequest, match="no tokenizer") as refusal:
            mute.prepare(refused)
        assert refusal.value.param == param
    with pytest.raises(UnsupportedField) as refusal:
        mute.prepare(completion([1], stop="x"))
    assert refusal.value.param == "stop"
    assert len(ids_of(mute, [completion([1, 2], max_tokens=4)])[0]) == 4


def test_a_model_without_a_template_takes_no_chats():
    """It says where to go instead."""
    tokenizer = sentencepiece_like()
    engine = engine_of(tiny_model("llama", vocab_size=len(tokenizer)), tokenizer)
    with pytest.raises(InvalidRequest, match="/v1/completions") as refusal:
        engine.prepare(chat("hello"))
    assert refusal.value.param == "messages"


def test_a_prompt_without_tokens_is_refused(speaker):
    """An empty sequence has nothing to continue: here spaces, which the tokenizer strips."""
    tokenizer = copy.deepcopy(byte_level())
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    with pytest.raises(InvalidRequest, match="no tokens") as refusal:
        engine_of(speaker, tokenizer).prepare(completion("  "))
    assert refusal.value.param == "prompt"


def test_min_tokens_needs_a_token_that_does_not_end():
    """Where every token ends the output, min_tokens cannot be kept."""
    engine = engine_of(tiny_model("llama", vocab_size=8))
    with pytest.raises(InvalidRequest, match="every token ends") as refusal:
        engine.prepare(completion([1], min_tokens=1, stop_token_ids=list(range(8))))
    assert refusal.value.param == "min_tokens"


def test_a_request_without_a_seed_gets_a_random_one(mute):
    """A 64-bit seed each, so that preemption and retries draw the same and others do not."""
    seeds = {mute.prepare(completion([1])).work.sampling.seed for _ in range(20)}
    assert len(seeds) == 20
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    assert mute.prepare(completion([1], seed=-5)).work.sampling.seed == -5
