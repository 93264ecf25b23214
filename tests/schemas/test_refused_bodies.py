"""A fault in a request's body is answered by the name of its field."""

import pytest

from schemas.codec import Refusal, decode_requests
from schemas.request import Endpoint
from tests.schemas.lines import CHAT, COMPLETIONS, VALID, body_line, refusal, user
from tests.schemas.samples import LIMITS, MESSAGES, ORIGIN

NAN, INFINITY = float("nan"), float("inf")
BODY_FAULTS = [
    # unknown fields, at every depth
    (CHAT, {"foo": 1}, "unsupported_field", "foo"),
    (CHAT, {"foo": None}, "unsupported_field", "foo"),
    (CHAT, {"messages": user("x", foo=1)}, "unsupported_field", "messages.0.foo"),
    (CHAT, {"messages": user([{"type": "text", "text": "x", "foo": 1}])}, "unsupported_field", "messages.0.content.0.foo"),
    (CHAT, {"stream": True, "stream_options": {"x": 1}}, "unsupported_field", "stream_options.x"),
    (COMPLETIONS, {"messages": MESSAGES}, "unsupported_field", "messages"),
    *((endpoint, {"foo": 1}, "unsupported_field", "foo") for endpoint in Endpoint),
    # fields that OpenAI or vLLM have
    *((CHAT, {name: []}, "unsupported_field", name) for name in ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls")),
    *((CHAT, {name: {}}, "unsupported_field", name) for name in ("audio", "modalities", "prediction", "reasoning_effort", "web_search_options")),
    *((CHAT, {name: False}, "unsupported_field", name) for name in ("store", "verbosity", "prompt_cache_key", "safety_identifier")),
    *((COMPLETIONS, {name: 1}, "unsupported_field", name) for name in ("best_of", "suffix", "prompt_logprobs")),
    (CHAT, {"stream": True, "stream_options": {"include_obfuscation": True}}, "unsupported_field", "stream_options.include_obfuscation"),
    (CHAT, {"response_format": {"type": "json_object"}}, "unsupported_field", "response_format"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "unsupported_field", "messages.0.role"),
    (CHAT, {"messages": [{"role": "function", "content": "x"}]}, "unsupported_field", "messages.0.role"),
    (CHAT, {"messages": user("x", tool_calls=[])}, "unsupported_field", "messages.0.tool_calls"),
    (CHAT, {"messages": user([{"type": "text", "text": "x"}, {"type": "image_url"}])}, "unsupported_field", "messages.0.content.1.type"),
    (CHAT, {"messages": user([{"type": "hologram"}])}, "unsupported_field", "messages.0.content.0.type"),
    # missing and of the wrong type
    *((endpoint, {"model": ...}, "invalid_request", "model") for endpoint in Endpoint),
    *((endpoint, {"model": None}, "invalid_request", "model") for endpoint in Endpoint),
    *((endpoint, {next(iter(VALID[endpoint])): ...}, "invalid_request", next(iter(VALID[endpoint]))) for endpoint in Endpoint),
    (CHAT, {"model": ""}, "invalid_request", "model"),
    (CHAT, {"messages": "Hi"}, "invalid_request", "messages"),
    (CHAT, {"messages": ["Hi"]}, "invalid_request", "messages.0"),
    (CHAT, {"messages": [{"content": "Hi"}]}, "invalid_request", "messages.0.role"),
    (CHAT, {"messages": [{"role": "user"}]}, "invalid_request", "messages.0.content"),
    (CHAT, {"messages": user(None)}, "invalid_request", "messages.0.content"),
    (CHAT, {"messages": user(7)}, "invalid_request", "messages.0.content"),
    (CHAT, {"messages": user(["x"])}, "invalid_request", "messages.0.content.0"),
    (CHAT, {"messages": user([{"type": 1}])}, "invalid_request", "messages.0.content.0"),
    (CHAT, {"messages": user([{"type": "text", "text": 1}])}, "invalid_request", "messages.0.content.0.text"),
    (CHAT, {"messages": [*MESSAGES, {"role": "pope", "content": "x"}]}, "invalid_request", "messages.1.role"),
    (CHAT, {"messages": user("x", name=1)}, "invalid_request", "messages.0.name"),
    (CHAT, {"temperature": "1"}, "invalid_request", "temperature"),
    (CHAT, {"max_tokens": True}, "invalid_request", "max_tokens"),
    (CHAT, {"max_tokens": 5.0}, "invalid_request", "max_tokens"),
    (CHAT, {"stream": 1}, "invalid_request", "stream"),
    (CHAT, {"stream": "true"}, "invalid_request", "stream"),
    (CHAT, {"stream": True, "stream_options": []}, "invalid_request", "stream_options"),
    (CHAT, {"logprobs": 1}, "invalid_request", "logprobs"),
    (COMPLETIONS, {"logprobs": True}, "invalid_request", "logprobs"),
    (CHAT, {"response_format": "text"}, "invalid_request", "response_format"),
    (CHAT, {"response_format": {}}, "invalid_request", "response_format"),
    (CHAT, {"service_tier": "scale"}, "invalid_request", "service_tier"),
    (CHAT, {"service_tier": 1}, "invalid_request", "service_tier"),
    (CHAT, {"user": 1}, "invalid_request", "user"),
    (CHAT, {"user": "x" * 257}, "invalid_request", "user"),
    # prompts
    (CHAT, {"messages": []}, "invalid_request", "messages"),
    (COMPLETIONS, {"prompt": ""}, "invalid_request", "prompt"),
    (COMPLETIONS, {"prompt": []}, "invalid_request", "prompt"),
    (COMPLETIONS, {"prompt": 5}, "invalid_request", "prompt"),
    (COMPLETIONS, {"prompt": ["a", "b"]}, "invalid_request", "prompt"),
    (COMPLETIONS, {"prompt": [[1], [2]]}, "invalid_request", "prompt"),
    (COMPLETIONS, {"prompt": [1, "a"]}, "invalid_request", "prompt"),
    (COMPLETIONS, {"prompt": [1, True]}, "invalid_request", "prompt"),
    (COMPLETIONS, {"prompt": [1, -1]}, "invalid_token", "prompt"),
    # stops
    (CHAT, {"stop": ""}, "invalid_request", "stop"),
    (CHAT, {"stop": ["a", ""]}, "invalid_request", "stop"),
    (CHAT, {"stop": [1]}, "invalid_request", "stop"),
    (CHAT, {"stop": {"a": 1}}, "invalid_request", "stop"),
    (CHAT, {"stop": ["a"] * 17}, "invalid_request", "stop"),
    (CHAT, {"stop": "a" * 1_025}, "invalid_request", "stop"),
    (CHAT, {"stop_token_ids": 1}, "invalid_request", "stop_token_ids"),
    (CHAT, {"stop_token_ids": [0] * 1_025}, "invalid_request", "stop_token_ids"),
    (CHAT, {"stop_token_ids": [0.5]}, "invalid_request", "stop_token_ids"),
    (CHAT, {"stop_token_ids": [-2]}, "invalid_token", "stop_token_ids"),
    # bounds
    *((CHAT, {"max_tokens": n}, "invalid_request", "max_tokens") for n in (0, -1, 2**31 + 1, 10**30)),
    *((CHAT, {"max_completion_tokens": n}, "invalid_request", "max_completion_tokens") for n in (0, 2**31 + 1)),
    *((CHAT, {"n": n}, "invalid_request", "n") for n in (0, -1, 129, 1_000_000)),
    *((CHAT, {"temperature": t}, "invalid_request", "temperature") for t in (-0.1, 2.1, NAN, INFINITY, -INFINITY)),
    *((CHAT, {"top_p": p}, "invalid_request", "top_p") for p in (0, -0.1, 1.1, NAN)),
    *((CHAT, {"top_k": k}, "invalid_request", "top_k") for k in (-2, 2**31 + 1)),
    *((CHAT, {"min_p": p}, "invalid_request", "min_p") for p in (-0.1, 1.1, NAN)),
    *((CHAT, {"presence_penalty": p}, "invalid_request", "presence_penalty") for p in (-2.1, 2.1, NAN)),
    *((CHAT, {"frequency_penalty": p}, "invalid_request", "frequency_penalty") for p in (-2.1, 2.1, INFINITY)),
    *((CHAT, {"repetition_penalty": p}, "invalid_request", "repetition_penalty") for p in (0, -1, 10.1, NAN)),
    *((CHAT, {"seed": s}, "invalid_request", "seed") for s in (2**63, -(2**63) - 1, 0.5)),
    (CHAT, {"temperature": 10**400}, "invalid_request", "temperature"),
    (CHAT, {"min_tokens": -1}, "invalid_request", "min_tokens"),
    *((CHAT, {"logit_bias": b}, "invalid_request", "logit_bias") for b in ([], {"a": 1}, {"1.5": 1}, {"1": "1"}, {"1": True}, {"1": 100.5})),
    *((CHAT, {"logit_bias": b}, "invalid_request", "logit_bias") for b in ({"1": NAN}, {"1": 10**400}, {"1": 1, "01": 1}, {" 1": 1}, {"1" * 19: 1})),
    (CHAT, {"logit_bias": {str(token): 1 for token in range(1_025)}}, "invalid_request", "logit_bias"),
    (CHAT, {"logit_bias": {"-1": 1}}, "invalid_token", "logit_bias"),
    *((CHAT, {"metadata": m}, "invalid_request", "metadata") for m in ([], {"a": 1}, {"a": "x" * 513}, {"x" * 65: "a"})),
    (CHAT, {"metadata": {str(key): "" for key in range(17)}}, "invalid_request", "metadata"),
    *((CHAT, {"logprobs": True, "top_logprobs": k}, "invalid_request", "top_logprobs") for k in (-1, 21, True)),
    *((COMPLETIONS, {"logprobs": k}, "invalid_request", "logprobs") for k in (-1, 21)),
    # contradictions
    (CHAT, {"min_tokens": 9, "max_tokens": 8}, "invalid_request", "min_tokens"),
    (CHAT, {"min_tokens": 9, "max_completion_tokens": 8}, "invalid_request", "min_tokens"),
    (COMPLETIONS, {"min_tokens": 17}, "invalid_request", "min_tokens"),
    (CHAT, {"max_tokens": 9, "max_completion_tokens": 8}, "invalid_request", "max_completion_tokens"),
    (CHAT, {"stream_options": {"include_usage": True}}, "invalid_request", "stream_options"),
    (CHAT, {"top_logprobs": 1}, "invalid_request", "top_logprobs"),
    (CHAT, {"logprobs": False, "top_logprobs": 1}, "invalid_request", "top_logprobs"),
    (COMPLETIONS, {"top_logprobs": 1}, "invalid_request", "top_logprobs"),
    (COMPLETIONS, {"logprobs": 2, "top_logprobs": 1}, "invalid_request", "top_logprobs"),
    # pooled endpoints
    *((Endpoint.EMBEDDINGS, {"input": i}, "invalid_request", "input") for i in ("", [], [""], [[]], 1, [1, "a"], ["x"] * 2_049)),
    (Endpoint.EMBEDDINGS, {"input": [[1], [-1]]}, "invalid_token", "input"),
    (Endpoint.EMBEDDINGS, {"encoding_format": "int8"}, "invalid_request", "encoding_format"),
    (Endpoint.EMBEDDINGS, {"dimensions": 0}, "invalid_request", "dimensions"),
    (Endpoint.EMBEDDINGS, {"stream": True}, "unsupported_field", "stream"),
    *((Endpoint.SCORE, {"text_1": t}, "invalid_request", "text_1") for t in ("", [], 1, [1], ["a", ""], ["a", "b", "c"], ["x"] * 2_049)),
    (Endpoint.SCORE, {"queries": "a"}, "invalid_request", "queries"),
    (Endpoint.SCORE, {"data_1": "a"}, "unsupported_field", "data_1"),
    (Endpoint.RERANK, {"query": ""}, "invalid_request", "query"),
    (Endpoint.RERANK, {"documents": []}, "invalid_request", "documents"),
    (Endpoint.RERANK, {"top_n": -1}, "invalid_request", "top_n"),
    (Endpoint.CLASSIFY, {"use_activation": 1}, "invalid_request", "use_activation"),
    *((Endpoint.CLASSIFY, {"truncate_prompt_tokens": t}, "invalid_request", "truncate_prompt_tokens") for t in (0, -2)),
]


@pytest.mark.parametrize(("endpoint", "fields", "code", "param"), BODY_FAULTS)
def test_a_faulty_body_is_refused_by_the_name_of_its_field(endpoint, fields, code, param):
    """The requester learns code and field, at its own address, and the record is no dead letter."""
    refused = refusal(body_line(endpoint, **fields))
    assert (refused.error.code, refused.error.param) == (code, param)
    assert refused.error.message.startswith(param)
    assert not refused.dead_letter
    assert refused.reply.custom_id == "c-42"
    assert refused.reply.stream is (fields.get("stream") is True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "ok \\ud83d\\ude00", "stop": ["a", "b\udfff"]}, "stop.1"),
        ({"x\ud800": 1}, "x?"),
        ({"metadata": {"k": {"deep": ["\udc00"]}}}, "metadata.k.deep.0"),
        ({"model": "\udabc"}, "model"),
    ],
)
def test_half_a_character_is_refused_by_the_path_of_its_field(fields, param):
    """A lone surrogate can be written as an escape, and could never be encoded again."""
    refused = refusal(body_line(COMPLETIONS, **fields))
    assert (refused.error.code, refused.error.param, refused.dead_letter) == ("invalid_request", param, False)


def test_many_strings_deep_inside_cost_little_memory():
    """Paths of siblings share their parents: a megabyte of them, nested as deep as JSON goes, is walked all the same."""
    deep = b"[" * 500 + b'"",' * 300_000 + b'"\\ud800"' + b"]" * 500
    refused = refusal(b'{"custom_id":"c","method":"POST","url":"/v1/completions","body":{"x":' + deep + b"}}")
    assert refused.error.code == "invalid_request"
    assert refused.error.param is not None
    assert refused.error.param.startswith("x.0.0.0")


def test_a_valid_line_is_not_refused():
    """The samples that the faults are put into are themselves fine."""
    for endpoint in Endpoint:
        (request,) = decode_requests(body_line(endpoint), (), ORIGIN, 1, LIMITS)
        assert not isinstance(request, Refusal)
