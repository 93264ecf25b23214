"""From a shard's answers to its files and its commit: the input's rows are read again, a few at a time, and meet their results."""

import time
from collections import Counter
from typing import Any

import pyarrow as pa
from pyarrow import compute

from pipeline.offline.plan import Job
from pipeline.offline.refusals import JobRefused
from pipeline.offline.tasks import ERROR_COLUMNS, result_columns
from pipeline.offline.windows import ShardReader
from pipeline.offline.writers import ResultFile
from schemas.job import ShardPlan, Task
from schemas.outcome import OutputFile, ShardCommit, TokenUsage


def write_shard(job: Job, shard: ShardPlan, answers: Any, reader: ShardReader, *, dtype: str, started_ms: int) -> ShardCommit:
    """Writes a shard's files and returns what is to be committed of them.

    Args:
        job: The shard's.
        shard: Which rows.
        answers: A table in the order of rows, as the journal has it.
        reader: Reads the rows again.
        dtype: Precision that the answers were computed in.
        started_ms: When that began.

    Raises:
        JobRefused: The input has changed meanwhile.
    """
    _check_complete(shard, answers.column("row").to_pylist())
    answers = _fill_in(answers)
    results = _results(job.spec.task, answers)
    failed = answers.column("error_code").is_valid().combine_chunks()
    data, errors = _write(job, shard, reader, results, failed)
    return ShardCommit(
        shard=shard.number,
        rows=shard.rows,
        data=data,
        errors=errors,
        error_codes=dict(Counter(code for code in answers.column("error_code").to_pylist() if code is not None)),
        usage=_usage(answers),
        dtype=dtype,
        started_ms=started_ms,
        finished_ms=time.time_ns() // 1_000_000,
    )


def _check_complete(shard: ShardPlan, rows: list[int]) -> None:
    """Holds the rows that have answers against those that were planned."""
    if rows != list(range(shard.rows)):
        odd = sorted(set(rows) ^ set(range(shard.rows)))[:5]
        raise RuntimeError(f"shard {shard.number} is not to be committed: of {shard.rows} rows {len(rows)} have answers; first differences: {odd}")


def _fill_in(answers: Any) -> Any:
    """Gives rows that ask what another row asked that row's answer."""
    return answers.take(compute.coalesce(answers.column("same_as"), answers.column("row")).combine_chunks()).set_column(
        answers.schema.get_field_index("same_as"), "same_as", answers.column("same_as")
    )


def _results(task: Task, answers: Any) -> Any:
    """The task's columns and those of errors, in one batch; an embedding's type gets its width."""
    names = [field.name for field in (*result_columns(task), *ERROR_COLUMNS)]
    table = answers.select(names)
    if task is Task.EMBED:
        column = table.column("embedding").combine_chunks()
        width = compute.max(compute.list_value_length(column)).as_py() or 0
        table = table.set_column(0, "embedding", column.cast(pa.list_(pa.float32(), width)))
    return table.combine_chunks()


def _write(job: Job, shard: ShardPlan, reader: ShardReader, results: Any, failed: Any) -> tuple[OutputFile | None, OutputFile | None]:
    folder, form, passed_on = job.folder, job.spec.output_format, job.passed_on
    error_names = [field.name for field in ERROR_COLUMNS]
    added = [field for field in results.schema if field.name not in error_names]
    name = folder.shard_name(shard.number)
    data = ResultFile(folder.path, f"data-{name}", form, pa.schema([*passed_on, *added]))
    errors = ResultFile(folder.path, f"errors-{name}", form, pa.schema([*passed_on, *ERROR_COLUMNS]))
    row = 0
    try:
        for piece in reader.pieces(shard, frozenset(passed_on.names)):
            here = slice(row, row + piece.batch.num_rows)
            row = here.stop
            is_failed = failed[here.start : here.stop]
            data.write(_joined(piece.batch, results[here], [f.name for f in added], compute.invert(is_failed)))
            errors.write(_joined(piece.batch, results[here], error_names, is_failed))
        if row != shard.rows:
            raise JobRefused(f"shard {shard.number} had {shard.rows} rows when it was planned and has {row}: an input has changed")
        return data.seal(), errors.seal()
    finally:
        data.discard()
        errors.discard()


def _joined(batch: Any, results: Any, names: list[str], wanted: Any) -> Any:
    """The wanted rows, with these columns of their results."""
    arrays = [*batch.columns, *(results.column(name).combine_chunks() for name in names)]
    joined = pa.RecordBatch.from_arrays(arrays, schema=pa.schema([*batch.schema, *(results.schema.field(name) for name in names)]))
    return joined if wanted.true_count == len(wanted) else joined.filter(wanted)


def _usage(answers: Any) -> TokenUsage:
    computed = answers.filter(compute.and_(compute.is_null(answers.column("same_as")), compute.greater(answers.column("prompt_tokens"), 0)))
    return TokenUsage(
        prompt_tokens=compute.sum(computed.column("prompt_tokens")).as_py() or 0,
        output_tokens=compute.sum(computed.column("output_tokens")).as_py() or 0,
        computed_rows=computed.num_rows,
    )
