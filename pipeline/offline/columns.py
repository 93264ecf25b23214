"""The columns of all input files together, and each file's rows brought to them."""

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.offline.readers.lines_csv import narrowest
from pipeline.offline.readers.shapes import JSON_FIELD
from pipeline.offline.refusals import JobRefused
from schemas.job import JobPlan


def unify(schemas: Sequence[Any], partitions: Sequence[Mapping[str, str | None]]) -> Any:
    """The schema that holds the rows of all files, and the columns that their folders' names make.

    Raises:
        JobRefused: A column is of types that have nothing in common.
    """
    plain = [pa.schema([_plain(field) for field in schema]) for schema in schemas]
    for schema in plain:
        if len(set(schema.names)) < len(schema.names):
            raise JobRefused("an input file names a column twice: rename one of them")
    try:
        united = pa.unify_schemas(plain, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise JobRefused(f"the input files disagree about a column: {error}") from None
    is_json = {field.name for schema in plain for field in schema if field.metadata}
    fields = [pa.field(f.name, f.type, metadata={JSON_FIELD: b"1"} if f.name in is_json else None) for f in united]
    names = dict.fromkeys(name for partition in partitions for name in partition if name not in united.names)
    return pa.schema(fields + [pa.field(name, narrowest([p.get(name) for p in partitions])) for name in names])


def conform(batch: Any, schema: Any, columns: Collection[str], partition: Mapping[str, str | None]) -> Any:
    """Brings rows of a file to the wanted columns of the schema: cast where the file has a narrower type, null where it has none.

    Raises:
        JobRefused: A value does not fit, so the file is not what it was.
    """
    fields = [field for field in schema if field.name in columns]
    try:
        arrays = [_array(batch, field, partition) for field in fields]
    except (pa.ArrowException, ValueError) as error:
        raise JobRefused(f"an input file is not what it was when the job was planned ({type(error).__name__})") from None
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)) if fields else batch.select([])


def encode(schema: Any) -> str:
    """A schema as text."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decode(plan: JobPlan) -> Any:
    """The schema of a plan's input columns."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(plan.arrow_schema)))


def _plain(field: Any) -> Any:
    """Without what only the file's writer cares for; dictionaries become what they stand for, since every file has its own."""
    kind = field.type
    while isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    is_json = field.metadata is not None and JSON_FIELD in field.metadata
    return pa.field(field.name, kind, metadata={JSON_FIELD: b"1"} if is_json else None)


def _array(batch: Any, field: Any, partition: Mapping[str, str | None]) -> Any:
    if field.name in batch.schema.names:
        array = batch.column(field.name)
        return array if array.type == field.type else array.cast(field.type)
    if partition.get(field.name) is not None:
        return pa.repeat(pa.scalar(partition[field.name]).cast(field.type), batch.num_rows)
    return pa.nulls(batch.num_rows, field.type)
