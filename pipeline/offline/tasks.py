"""What each task asks of a model, and the columns that it adds to a row."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from schemas.job import Task
from schemas.request import Endpoint

ENDPOINTS: Mapping[Task, Endpoint] = MappingProxyType(
    {
        Task.GENERATE: Endpoint.COMPLETIONS,
        Task.CHAT: Endpoint.CHAT,
        Task.EMBED: Endpoint.EMBEDDINGS,
        Task.CLASSIFY: Endpoint.CLASSIFY,
        Task.RERANK: Endpoint.RERANK,
        Task.SCORE: Endpoint.COMPLETIONS,
    }
)

_GENERATED = (
    pa.field("output", pa.utf8()),
    pa.field("output_token_ids", pa.list_(pa.int32())),
    pa.field("finish_reason", pa.utf8()),
    pa.field("prompt_tokens", pa.int32()),
    pa.field("output_tokens", pa.int32()),
)
_COLUMNS: Mapping[Task, tuple[Any, ...]] = MappingProxyType(
    {
        Task.GENERATE: _GENERATED,
        Task.CHAT: _GENERATED,
        Task.EMBED: (pa.field("embedding", pa.list_(pa.float32())),),
        Task.CLASSIFY: (pa.field("label", pa.utf8()), pa.field("scores", pa.list_(pa.float32()))),
        Task.RERANK: (pa.field("score", pa.float32()),),
        Task.SCORE: (pa.field("logprob_sum", pa.float64()), pa.field("token_count", pa.int32()), pa.field("perplexity", pa.float64())),
    }
)
ERROR_COLUMNS = (pa.field("error_code", pa.utf8()), pa.field("error_message", pa.utf8()))

GENERATING = frozenset({Task.GENERATE, Task.CHAT})
"""Tasks whose answers depend on how tokens are drawn."""


def result_columns(task: Task) -> tuple[Any, ...]:
    """The columns that the task adds to a row. An embedding's width is the model's and becomes part of the type when it is written."""
    return _COLUMNS[task]
