"""Strategies for everything that crosses the wire, and a few fixed samples."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from schemas.codec import BatchRow, ErrorBody, Limits, RequestHeaders, ResultLine
from schemas.dead_letter import DeadLetter
from schemas.errors import BY_CODE
from schemas.events import Begin, Chunk, End, Error, FinishReason, Reset, StreamHead, Usage
from schemas.headers import MAX_INT32, MAX_INT64
from schemas.record import Origin
from schemas.request import Endpoint

repeatable = settings(derandomize=True, deadline=None, database=None, max_examples=60)
"""The same examples in every run."""

ORIGIN = Origin("penstock.requests", 3, 1_042)
LIMITS = Limits()
MESSAGES = [{"role": "user", "content": "Hi"}]
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
custom_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
counts = st.integers(0, MAX_INT64)
small_counts = st.integers(0, 2**31)
token_ids = st.lists(st.integers(0, 200_000), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=4)

heads = st.builds(StreamHead, id=names, object=st.sampled_from(["chat.completion.chunk", "text_completion"]), created=counts, model=names)
usages = st.builds(Usage, prompt_tokens=small_counts, completion_tokens=small_counts, is_cached=st.booleans())
error_texts = {
    "code": st.sampled_from(sorted(BY_CODE)),
    "type": names,
    "message": texts,
    "param": st.none() | texts,
    "retry_after_ms": st.none() | counts,
}
begins = st.builds(Begin, custom_id=custom_ids, model=names, origin=names, created=counts, epoch=counts, resume=st.booleans())
chunks = st.builds(
    Chunk,
    head=heads,
    attempt=counts,
    seq=counts,
    text=texts,
    token_ids=token_ids.map(tuple),
    token_offset=counts,
    index=st.integers(0, 127),
    opens_choice=st.booleans(),
    logprobs=st.none() | json_objects,
)
ends = st.builds(
    End,
    head=heads,
    attempt=counts,
    seq=counts,
    finish_reasons=st.lists(st.sampled_from(FinishReason), min_size=1, max_size=4).map(tuple),
    usage=usages,
)
begun_errors = st.builds(Error, **error_texts, attempt=counts, seq=counts)
refusing_errors = st.builds(Error, **error_texts)
resets = st.builds(Reset, attempt=counts, reason=texts)
events = begins | chunks | ends | begun_errors | refusing_errors | resets

result_lines = st.builds(
    ResultLine,
    id=names,
    custom_id=st.none() | custom_ids,
    status_code=st.integers(100, 599),
    request_id=names,
    body=st.none() | json_objects,
    error=st.none() | st.builds(ErrorBody, code=names, message=texts),
    origin=names,
    attempt=counts,
    retry_after_ms=st.none() | counts,
)
dead_letters = st.builds(
    DeadLetter, origin=names, error_code=st.sampled_from(sorted(BY_CODE)), error_message=texts, attempts=counts, failed_at_ms=counts
)
raw_headers = st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=4).map(tuple)

request_headers = st.builds(
    RequestHeaders,
    correlation_id=st.none() | texts,
    reply_to=st.none() | texts,
    reply_partition=st.none() | st.integers(0, MAX_INT32),
    deadline_ms=st.none() | counts,
    traceparent=st.just(TRACEPARENT),
    tracestate=st.none() | st.just("vendor=1"),
)


@st.composite
def bodies(draw: st.DrawFn, endpoint: Endpoint) -> dict[str, Any]:
    """Draws a valid body of the endpoint, as JSON has it."""
    body: dict[str, Any] = {"model": draw(names)}
    match endpoint:
        case Endpoint.CHAT:
            roles = st.sampled_from(["system", "developer", "user", "assistant"])
            body["messages"] = draw(st.lists(st.fixed_dictionaries({"role": roles, "content": texts}), min_size=1, max_size=3))
        case Endpoint.COMPLETIONS:
            body["prompt"] = draw(names | st.lists(st.integers(0, 200_000), min_size=1, max_size=8))
        case Endpoint.EMBEDDINGS | Endpoint.CLASSIFY:
            body["input"] = draw(names | st.lists(names, min_size=1, max_size=3))
        case Endpoint.SCORE:
            body |= {"text_1": draw(names), "text_2": draw(st.lists(names, min_size=1, max_size=3))}
        case Endpoint.RERANK:
            body |= {"query": draw(names), "documents": draw(st.lists(names, min_size=1, max_size=3))}
    if endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS):
        body |= draw(sampling_fields)
    return body


sampling_fields = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 2**31),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0.001, 1),
        "top_k": st.integers(-1, 1000),
        "min_p": st.floats(0, 1),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "stop": names | st.lists(names, max_size=16),
        "stop_token_ids": token_ids,
        "ignore_eos": st.booleans(),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "repetition_penalty": st.floats(0.001, 10),
        "logit_bias": st.dictionaries(st.integers(0, 200_000).map(str), st.floats(-100, 100), max_size=4),
        "n": st.integers(1, 128),
        "stream": st.booleans(),
        "service_tier": st.sampled_from(["auto", "default", "flex", "priority"]),
        "user": texts,
    },
)
any_request = st.sampled_from(Endpoint).flatmap(lambda endpoint: st.tuples(st.just(endpoint), bodies(endpoint)))
batch_rows = st.lists(
    any_request.flatmap(
        lambda pair: st.builds(BatchRow, custom_id=custom_ids, endpoint=st.just(pair[0]), body=st.just(pair[1]), deadline_ms=st.none() | counts)
    ),
    min_size=1,
    max_size=4,
)
