"""What became of one row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.offline.refusals import Fault
from pipeline.offline.tasks import ERROR_COLUMNS, result_columns
from schemas.job import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A row's result columns by name, or its fault.

    `row` is its place in the shard. One with `same_as` has the answer of that row, whose prompt is the same.
    """

    row: int
    values: Mapping[str, Any] = field(default_factory=dict)
    prompt_tokens: int = 0
    output_tokens: int = 0
    fault: Fault | None = None
    same_as: int | None = None


def answer_schema(task: Task) -> Any:
    """Columns of answers on their way: in a journal."""
    own = [pa.field("row", pa.int32()), pa.field("same_as", pa.int32()), pa.field("prompt_tokens", pa.int32()), pa.field("output_tokens", pa.int32())]
    names = {column.name for column in own}
    return pa.schema([*own, *ERROR_COLUMNS, *(column for column in result_columns(task) if column.name not in names)])


def to_batch(answers: Sequence[Answer], schema: Any) -> Any:
    """Answers as a record batch."""
    rows = [
        {
            **answer.values,
            "row": answer.row,
            "same_as": answer.same_as,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
            "error_code": None if answer.fault is None else answer.fault.code,
            "error_message": None if answer.fault is None else answer.fault.message,
        }
        for answer in answers
    ]
    return pa.RecordBatch.from_arrays([pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)
