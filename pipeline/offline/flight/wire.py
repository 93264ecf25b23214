"""What crosses the door: what is asked once, for all rows of an exchange, then rows in and answers out as record batches.

A row's body is what was asked with the row's own columns laid over it, so that a caller with plain texts sends one column, and one
whose rows are whole requests sends `body`. Answers carry the row's number as the caller gave it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.offline.answer import Answer
from pipeline.offline.refusals import Fault
from pipeline.offline.tasks import ENDPOINTS, ERROR_COLUMNS, result_columns
from schemas.errors import InvalidJson, InvalidRequest, PenstockError
from schemas.faults import from_validation
from schemas.generation import Generation
from schemas.job import ModelSpec, Task
from schemas.json_value import load_object
from schemas.record import Origin, ReplyAddress
from schemas.request import Request, parse_body

VERSION = 1
BATCH_BYTES = 1024 * 1024
"""The largest record batch that is taken in."""
BATCH_ROWS = 4_096
COMMAND_BYTES = 64 * 1024
ANSWER_ROWS = 256
"""Answers per record batch, so that long ones make no giant message."""
WELCOME = "welcome"
"""The action that tells what a worker is and serves."""


class DoorFault(Exception):
    """What a caller sent is not for this door; the message says what, without any of it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Wanted(_Record):
    """What is asked of every row of an exchange: the command of its descriptor, as JSON.

    `fields` are those of the task's OpenAI body that all rows share: how text is generated, say.
    """

    version: int = Field(default=VERSION, ge=VERSION, le=VERSION)
    task: Task
    model: str = Field(min_length=1, max_length=128)
    fields: dict[str, Any] = Field(default_factory=dict, max_length=64)

    def to_bytes(self) -> bytes:
        """As a descriptor carries it."""
        return self.model_dump_json().encode()


class Served(_Record):
    """A model that a worker serves: `spec` names it down to its files, `dtype` is what it computes in."""

    spec: ModelSpec
    dtype: str


class Welcome(_Record):
    """What a worker tells of itself.

    Attributes:
        instance: Another one for every process, so that a caller notices that the one it talked to is gone.
        depth: Rows of one exchange that it holds at a time.
    """

    version: int = VERSION
    instance: str
    depth: int
    models: tuple[Served, ...]


class Goodbye(_Record):
    """Ends an exchange before its answers are complete: a message with this as its metadata, and no rows. The caller hangs up."""

    message: str
    is_retryable: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it came in: the caller's number for it, and its request or what is wrong with it."""

    number: int
    request: Request | Fault
    size_bytes: int


_TEXT = (pa.utf8(), pa.large_utf8())
_INTEGERS = (pa.int64(), pa.int32())
NUMBER = "row"
COUNTS = ("prompt_tokens", "output_tokens")
_COLUMNS: Mapping[str, tuple[Any, ...]] = {
    NUMBER: _INTEGERS,
    "body": _TEXT,
    "prompt": _TEXT,
    "messages": _TEXT,
    "input": _TEXT,
    "query": _TEXT,
    "document": _TEXT,
    "seed": _INTEGERS,
}
BODY_SCHEMA = pa.schema([pa.field(NUMBER, pa.int64(), nullable=False), pa.field("body", pa.utf8(), nullable=False)])
"""Rows that are whole requests."""


def answers_schema(task: Task) -> Any:
    """Columns of answers."""
    own = [pa.field(NUMBER, pa.int64(), nullable=False), pa.field("prompt_tokens", pa.int32()), pa.field("output_tokens", pa.int32())]
    names = {column.name for column in own}
    return pa.schema([*own, *ERROR_COLUMNS, *(column for column in result_columns(task) if column.name not in names)])


def read_wanted(command: bytes | None) -> Wanted:
    """Reads what is asked.

    Raises:
        DoorFault: It is too long, no JSON, or not what a door can be asked.
    """
    if command is None:
        raise DoorFault("the exchange says nothing of what is wanted: give a command descriptor with JSON of task and model")
    if len(command) > COMMAND_BYTES:
        raise DoorFault(f"the command is longer than {COMMAND_BYTES} bytes")
    try:
        return Wanted.model_validate_json(command)
    except ValidationError as error:
        fault = from_validation(error, whole="command")
        raise DoorFault(f"{fault.param or 'command'}: {fault.message}") from None


def check_schema(schema: Any) -> None:
    """Looks at the columns before any row is decoded: flat ones of known names.

    Raises:
        DoorFault: One is not for rows.
    """
    if NUMBER not in schema.names:
        raise DoorFault(f"the rows have no column {NUMBER!r} with their numbers")
    if len(set(schema.names)) < len(schema.names):
        raise DoorFault("the schema names a column twice")
    for field in schema:
        if field.type not in _COLUMNS.get(field.name, ()):
            known = ", ".join(f"{name} ({types[0]})" for name, types in _COLUMNS.items())
            raise DoorFault(f"a column is not one of rows; they are {known}")


def read_rows(batch: Any, wanted: Wanted) -> Iterator[Row]:
    """Makes requests of the rows of a batch, once it is known to be sound.

    Raises:
        DoorFault: It is too large, or its offsets lead elsewhere.
    """
    if batch.num_rows > BATCH_ROWS or batch.nbytes > BATCH_BYTES:
        raise DoorFault(f"a record batch has more than {BATCH_BYTES} bytes or {BATCH_ROWS} rows: send smaller ones")
    try:
        batch.validate(full=True)
        columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    except (pa.ArrowException, ValueError):
        raise DoorFault("a record batch is corrupt") from None
    numbers = columns.pop(NUMBER)
    if None in numbers:
        raise DoorFault("a row has no number")
    return _rows(numbers, columns, wanted)


def _rows(numbers: Sequence[int], columns: Mapping[str, Sequence[Any]], wanted: Wanted) -> Iterator[Row]:
    for place, number in enumerate(numbers):
        own = {name: values[place] for name, values in columns.items() if values[place] is not None}
        size_bytes = sum(len(value) for value in own.values() if isinstance(value, str))
        yield Row(number, _request(number, own, wanted), size_bytes)


def _request(number: int, own: dict[str, Any], wanted: Wanted) -> Request | Fault:
    try:
        fields = {**wanted.fields, **_fields(own), "model": wanted.model}
        body = parse_body(ENDPOINTS[wanted.task], fields)
        if isinstance(body, Generation) and body.n > 1:
            raise InvalidRequest("n must be 1 here: a row has one output", param="n")
    except PenstockError as error:
        return Fault.of(error)
    name = str(number)
    reply = ReplyAddress(custom_id=name, correlation_id=name, stream=False)
    return Request(custom_id=name, endpoint=ENDPOINTS[wanted.task], body=body, origin=Origin("bulk", 0, number), reply=reply, timestamp_ms=0)


def _fields(own: dict[str, Any]) -> dict[str, Any]:
    fields = load_object(own.pop("body").encode(), what="the column body") if "body" in own else {}
    if "messages" in own:
        own["messages"] = _parse(own["messages"])
    if "document" in own:
        own["documents"] = [own.pop("document")]
    return fields | own


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidJson("the column messages does not hold JSON", param="messages") from None


def write_answers(answers: Sequence[tuple[int, Answer]], schema: Any) -> Any:
    """Answers, each with its row's number, as a record batch."""
    rows = [
        {
            **answer.values,
            NUMBER: number,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
            "error_code": None if answer.fault is None else answer.fault.code,
            "error_message": None if answer.fault is None else answer.fault.message,
        }
        for number, answer in answers
    ]
    return pa.RecordBatch.from_arrays([pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)


def read_answers(batch: Any, task: Task) -> Iterator[tuple[int, Answer]]:
    """The inverse. The answers' own places are not known here: they are 0."""
    names = [column.name for column in result_columns(task) if column.name not in COUNTS]
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    if "embedding" in columns:
        columns["embedding"] = _arrays(batch.column("embedding"))
    for place, number in enumerate(columns[NUMBER]):
        code = columns["error_code"][place]
        if code is not None:
            yield number, Answer(row=0, fault=Fault(code, columns["error_message"][place] or ""))
            continue
        prompt_tokens, output_tokens = columns["prompt_tokens"][place] or 0, columns["output_tokens"][place] or 0
        values = {name: columns[name][place] for name in names}
        yield number, Answer(row=0, values=values, prompt_tokens=prompt_tokens, output_tokens=output_tokens)


def _arrays(column: Any) -> list[Any]:
    """Vectors as views: a list of numbers would cost ten times as much."""
    return [None if not value.is_valid else value.values.to_numpy() for value in column]
