from typing import Any

import pytest

from schemas.errors import InvalidRequest
from schemas.request import BODIES, Endpoint, SamplingParams, ServiceTier, parse_body
from tests.schemas.samples import MESSAGES


def chat(**fields: Any) -> Any:
    """Parses a chat's body."""
    return parse_body(Endpoint.CHAT, {"model": "tiny", "messages": MESSAGES} | fields)


def completion(**fields: Any) -> Any:
    """Parses a completion's body."""
    return parse_body(Endpoint.COMPLETIONS, {"model": "tiny", "prompt": "Hi"} | fields)


def test_a_plain_chat_has_openais_defaults():
    """What is not sent is what OpenAI says it is; only the context bounds a chat's output."""
    body = chat()
    assert body.sampling == SamplingParams(max_tokens=None)
    assert (body.stream, body.service_tier, body.include_usage) == (False, ServiceTier.DEFAULT, False)


def test_a_plain_completion_ends_after_16_tokens():
    """OpenAI's default for completions."""
    assert completion().sampling == SamplingParams(max_tokens=16)


def test_every_sampling_field_reaches_the_engine():
    """Each field of the contract arrives under its own name and none is ignored."""
    body = chat(
        max_completion_tokens=64,
        min_tokens=2,
        temperature=0,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        seed=-(2**63),
        stop=["a", "b"],
        stop_token_ids=[7, 8],
        ignore_eos=True,
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.5,
        logit_bias={"5": -100, "6": 1.5},
        logprobs=True,
        top_logprobs=3,
        n=2,
    )
    assert body.sampling == SamplingParams(
        max_tokens=64,
        min_tokens=2,
        temperature=0.0,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        seed=-(2**63),
        stop=("a", "b"),
        stop_token_ids=(7, 8),
        ignore_eos=True,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        repetition_penalty=1.5,
        logit_bias=((5, -100.0), (6, 1.5)),
        logprobs=3,
        n=2,
    )


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"stop": "x"}, "stop", ("x",)),
        ({"stop": []}, "stop", ()),
        ({"top_k": -1}, "top_k", 0),
        ({"max_tokens": 2**31}, "max_tokens", 2**31),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", 5),
        ({"logprobs": True}, "logprobs", 0),
        ({"logprobs": True, "top_logprobs": 0}, "logprobs", 0),
        ({"logprobs": False}, "logprobs", None),
        ({"seed": 2**63 - 1}, "seed", 2**63 - 1),
        ({"n": 128}, "n", 128),
    ],
)
def test_the_forms_that_a_field_may_take_come_to_one(fields, name, value):
    """A lone stop string is a list of one, -1 and 0 both switch top_k off, and bounds are inclusive."""
    assert getattr(chat(**fields).sampling, name) == value


@pytest.mark.parametrize(("fields", "expected"), [({}, None), ({"logprobs": 0}, 0), ({"logprobs": 20}, 20), ({"logprobs": 2, "top_logprobs": 2}, 2)])
def test_a_completion_counts_its_logprobs(fields, expected):
    """Completions say how many alternatives they want in `logprobs` itself."""
    assert completion(**fields).sampling.logprobs == expected


@pytest.mark.parametrize(("sent", "meant"), [("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "priority")])
@pytest.mark.parametrize("endpoint", Endpoint)
def test_the_service_tier_picks_the_lane(endpoint, sent, meant):
    """On every endpoint, and OpenAI's `auto` is the default lane."""
    fields = {"messages": MESSAGES, "prompt": "x", "input": "x", "text_1": "x", "text_2": "x", "query": "x", "documents": "x"}
    body = {name: value for name, value in fields.items() if name in BODIES[endpoint].model_fields}
    assert parse_body(endpoint, {"model": "tiny", "service_tier": sent} | body).service_tier == meant


def test_null_means_absent():
    """OpenAI's clients send null for what they do not set, also for fields that are not supported here."""
    nulls = dict.fromkeys(["temperature", "stop", "logit_bias", "stream", "stream_options", "service_tier", "tools", "store", "user"])
    assert chat(**nulls) == chat()
    assert chat(messages=[{"role": "user", "content": "Hi", "name": None, "tool_calls": None}]) == chat()


def test_openais_other_fields_are_taken():
    """`metadata`, `user`, plain `response_format` and stream options are part of the contract."""
    body = chat(metadata={"a": "b"}, user="u", response_format={"type": "text"}, stream=True, stream_options={"include_usage": True})
    assert (body.metadata, body.user, body.stream, body.include_usage) == ((("a", "b"),), "u", True, True)
    assert chat(stream=True, stream_options={}).include_usage is False


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ([{"type": "text", "text": "one"}], "one"),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
        ([], ""),
    ],
)
def test_a_message_says_its_parts_line_by_line(content, text):
    """A string and text parts both come to one text."""
    (message,) = chat(messages=[{"role": "system", "content": content, "name": "n"}]).messages
    assert (message.role, message.text) == ("system", text)


@pytest.mark.parametrize("prompt", ["Hi", [1, 2, 3]])
def test_a_prompt_is_text_or_token_ids(prompt):
    """Ids stay ids, as large as they are: the engine knows its vocabulary."""
    assert completion(prompt=prompt).prompt == (prompt if isinstance(prompt, str) else tuple(prompt))


@pytest.mark.parametrize(
    ("sent", "read"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3))), (["a", [1]], ("a", (1,)))],
)
@pytest.mark.parametrize("endpoint", [Endpoint.EMBEDDINGS, Endpoint.CLASSIFY])
def test_an_input_is_one_text_or_many_as_words_or_ids(endpoint, sent, read):
    """All of OpenAI's forms come to a list of texts."""
    assert parse_body(endpoint, {"model": "tiny", "input": sent}).input == read


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents")])
@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ("a", "b", (("a", "b"),)),
        ("a", ["b", "c"], (("a", "b"), ("a", "c"))),
        (["a"], ["b", "c"], (("a", "b"), ("a", "c"))),
        (["a", "b"], ["c", "d"], (("a", "c"), ("b", "d"))),
    ],
)
def test_score_pairs_one_with_many_or_each_with_each(names, first, second, pairs):
    """As vLLM pairs them, under either pair of names."""
    body: Any = parse_body(Endpoint.SCORE, {"model": "tiny", names[0]: first, names[1]: second})
    assert body.pairs == pairs


def test_pooled_bodies_keep_their_options():
    """Options of vLLM that change the answer are read, not ignored."""
    embeddings: Any = parse_body(Endpoint.EMBEDDINGS, {"model": "m", "input": "x", "encoding_format": "base64", "dimensions": 8})
    assert (embeddings.encoding_format, embeddings.dimensions, embeddings.truncate_prompt_tokens) == ("base64", 8, None)
    rerank: Any = parse_body(Endpoint.RERANK, {"model": "m", "query": "q", "documents": ["d"], "top_n": 1, "truncate_prompt_tokens": -1})
    assert (rerank.query, rerank.documents, rerank.top_n, rerank.truncate_prompt_tokens, rerank.use_activation) == ("q", ("d",), 1, -1, True)


@pytest.mark.parametrize("body", [chat(messages=[{"role": "user", "content": "canary"}]), completion(prompt="canary")])
def test_text_of_a_requester_stays_out_of_repr(body):
    """What is logged by accident holds no prompt."""
    assert "canary" not in repr(body)


def test_a_body_that_is_no_object_is_refused():
    """Also where no record was read, as behind HTTP."""
    with pytest.raises(InvalidRequest, match="body must be an object") as caught:
        parse_body(Endpoint.CHAT, [])  # type: ignore[arg-type]
    assert caught.value.param is None
