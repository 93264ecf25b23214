"""Bodies of pooled answers, as OpenAI and vLLM spell them."""

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import StreamHead, Usage
from schemas.pooled_results import Pooled, pooled_body
from schemas.request import Endpoint, parse_body

HEAD = StreamHead(id="x-1", object="text_completion", created=7, model="m")
USAGE = Usage(prompt_tokens=5, completion_tokens=0)


def body_of(endpoint, asked, rows, labels=()):
    """The response, after a journey as JSON."""
    body = parse_body(endpoint, {"model": "m"} | asked)
    pooled = Pooled(rows=np.array(rows, dtype=np.float32), labels=labels)
    return json.loads(json.dumps(pooled_body(body, HEAD, pooled, USAGE), allow_nan=False))


def test_embeddings_are_a_list_in_the_order_of_the_request():
    """OpenAI's object, member by member."""
    assert body_of(Endpoint.EMBEDDINGS, {"input": ["a", "b"]}, [[0.5, -0.25], [1, 0]]) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.0]},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def test_base64_is_little_endian_float32():
    """What OpenAI's own clients unpack."""
    body = body_of(Endpoint.EMBEDDINGS, {"input": "a", "encoding_format": "base64"}, [[0.1, -3.0]])
    assert base64.b64decode(body["data"][0]["embedding"]) == struct.pack("<2f", 0.1, -3.0)


@given(numbers=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=1))
def test_decimals_lose_nothing(numbers):
    """Read back as float32 they are the numbers that were sent, whatever their size."""
    rows = np.array([numbers], dtype=np.float32)
    body = body_of(Endpoint.EMBEDDINGS, {"input": "a"}, rows)
    assert np.array_equal(np.array(body["data"][0]["embedding"], dtype=np.float32), rows[0])


def test_decimals_are_short():
    """Nine digits, not the seventeen that a float64 takes."""
    body = body_of(Endpoint.EMBEDDINGS, {"input": "a"}, np.random.default_rng(0).normal(size=(1, 500)))
    assert max(len(repr(number).lstrip("-").replace("0.", "")) for number in body["data"][0]["embedding"]) <= 12


def test_classes_name_the_likeliest_label():
    """VLLM's object, member by member."""
    assert body_of(Endpoint.CLASSIFY, {"input": ["a", "b"]}, [[0.25, 0.75], [1, 0]], ("dry", "wet")) == {
        "id": "x-1",
        "object": "list",
        "created": 7,
        "model": "m",
        "data": [
            {"index": 0, "label": "wet", "probs": [0.25, 0.75], "num_classes": 2},
            {"index": 1, "label": "dry", "probs": [1.0, 0.0], "num_classes": 2},
        ],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def test_scores_stand_in_the_order_of_the_pairs():
    """VLLM's object, member by member."""
    assert body_of(Endpoint.SCORE, {"text_1": "q", "text_2": ["a", "b"]}, [[0.5], [0.75]]) == {
        "id": "x-1",
        "object": "list",
        "created": 7,
        "model": "m",
        "data": [{"index": 0, "object": "score", "score": 0.5}, {"index": 1, "object": "score", "score": 0.75}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


@pytest.mark.parametrize(("top_n", "indexes"), [(None, [2, 0, 3, 1]), (0, [2, 0, 3, 1]), (2, [2, 0]), (99, [2, 0, 3, 1])])
def test_ranks_go_from_best_to_worst(top_n, indexes):
    """So many as asked for, all by default; among equals the order of the request; with the text of each."""
    asked = {"query": "q", "documents": ["a", "b", "c", "d"]} | ({} if top_n is None else {"top_n": top_n})
    body = body_of(Endpoint.RERANK, asked, [[0.5], [-1.0], [0.75], [0.5]])
    assert [result["index"] for result in body["results"]] == indexes
    assert body["results"][0] == {"index": 2, "document": {"text": "c"}, "relevance_score": 0.75}
    assert {name: body[name] for name in ("id", "model", "usage")} == {
        "id": "x-1",
        "model": "m",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
