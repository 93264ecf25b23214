"""Bodies of answers to requests that read text and write none: embeddings as OpenAI defines them, the others as vLLM does."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.events import StreamHead, Usage
from schemas.pooled import ClassifyBody, EmbeddingsBody, RerankBody, ScoreBody
from schemas.results import CACHE_HIT

PooledBody = EmbeddingsBody | ScoreBody | RerankBody | ClassifyBody

Rows = NDArray[np.float32]
"""Numbers, one row per text."""

FLOAT_DIGITS = 9
"""As many significant digits as tell every two float32 apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """What a model makes of the texts of one request, all of them together.

    Attributes:
        rows: One row per text or pair, in the order of the request: an embedding, the probabilities of the labels, or one score.
        labels: Names of the columns, where they have names.
    """

    rows: Rows
    labels: tuple[str, ...] = ()


def pooled_body(body: PooledBody, head: StreamHead, pooled: Pooled, usage: Usage) -> dict[str, Any]:
    """The response to `body`."""
    match body:
        case EmbeddingsBody():
            return _embeddings(body, head, pooled, usage)
        case ClassifyBody():
            return _named(head, usage, data=_classes(pooled), object="list")
        case ScoreBody():
            data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(_numbers(pooled.rows[:, 0]))]
            return _named(head, usage, data=data, object="list")
        case RerankBody():
            return _named(head, usage, results=_ranks(body, _numbers(pooled.rows[:, 0])))


def _embeddings(body: EmbeddingsBody, head: StreamHead, pooled: Pooled, usage: Usage) -> dict[str, Any]:
    is_base64 = body.encoding_format == "base64"
    vectors = [_base64(row) for row in pooled.rows] if is_base64 else [_numbers(row) for row in pooled.rows]
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)],
        "model": head.model,
        "usage": _usage(usage),
    }


def _classes(pooled: Pooled) -> list[dict[str, Any]]:
    return [
        {"index": index, "label": pooled.labels[int(row.argmax())], "probs": _numbers(row), "num_classes": len(row)}
        for index, row in enumerate(pooled.rows)
    ]


def _ranks(body: RerankBody, scores: list[float]) -> list[dict[str, Any]]:
    """The documents, best first; among equals the earlier one."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n or None]
    return [{"index": index, "document": {"text": body.documents[index]}, "relevance_score": scores[index]} for index in order]


def _named(head: StreamHead, usage: Usage, **content: Any) -> dict[str, Any]:
    return {"id": head.id, "created": head.created, "model": head.model, **content, "usage": _usage(usage)}


def _usage(usage: Usage) -> dict[str, int | str]:
    counts: dict[str, int | str] = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens}
    return counts | CACHE_HIT if usage.is_cached else counts


def _base64(row: Rows) -> str:
    """Little-endian float32, as OpenAI sends them."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _numbers(row: Rows) -> list[float]:
    """The numbers in as few decimal digits as keep them: a float32 spelt as a float64 is twice as long for nothing."""
    wide = row.astype(np.float64)
    exponents = np.floor(np.log10(np.abs(wide), out=np.zeros_like(wide), where=wide != 0.0))
    scale = 10.0 ** (FLOAT_DIGITS - 1 - exponents)
    numbers: list[float] = (np.rint(wide * scale) / scale).tolist()
    return numbers
