"""What a job over a dataset is: its specification, and the plan of its rows; `outcome` has what becomes of it.

All of it lies in the job's folder as JSON. A row's identity is (file, row group, ordinal), and every planned row is in exactly
one of the data and the errors of its shard.
"""

import hashlib
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.model_ref import ModelRef
from schemas.sampling import MinP, MinTokens, RepetitionPenalty, Temperature, Tokens, TopK, TopP

VERSION = 1
"""Of the job folder's format."""


class Task(StrEnum):
    """What is done with each row."""

    GENERATE = "generate"
    CHAT = "chat"
    EMBED = "embed"
    CLASSIFY = "classify"
    RERANK = "rerank"
    SCORE = "score"


class OutputFormat(StrEnum):
    """What the results are written as."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    ARROW = "arrow"


class InputFormat(StrEnum):
    """What a file of the dataset is."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    ARROW = "arrow"


class JobRecord(BaseModel):
    """Base of all that is kept of a job: frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """As a JSON file."""
        return (self.model_dump_json(indent=1) + "\n").encode()


class PromptSpec(JobRecord):
    """Where a row's prompt comes from: one of three, or none, and then each row is a request in itself (a line of a Batch file)."""

    template: str | None = Field(default=None, min_length=1, max_length=1_000_000)
    column: str | None = Field(default=None, min_length=1)
    messages_column: str | None = Field(default=None, min_length=1)
    query_column: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.template, self.column, self.messages_column)) > 1:
            raise ValueError("give one of template, column and messages_column")
        return self

    @property
    def is_request(self) -> bool:
        """Whether rows are whole requests."""
        return self.template is None and self.column is None and self.messages_column is None


class SamplingSpec(JobRecord):
    """How text is generated."""

    max_tokens: Tokens = 256
    min_tokens: MinTokens = 0
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    min_p: MinP = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


class ModelSpec(JobRecord, ModelRef):
    """Which model computes, down to its files: `fingerprint` is a hash of them."""

    fingerprint: str
    dtype: str


class JobSpec(JobRecord):
    """What a job is; never changed once it is written."""

    version: int = VERSION
    task: Task
    model: ModelSpec
    prompt: PromptSpec
    sampling: SamplingSpec = SamplingSpec()
    drop_columns: tuple[str, ...] = ()
    output_format: OutputFormat = OutputFormat.PARQUET

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        if self.prompt.messages_column is not None and self.task is not Task.CHAT:
            raise ValueError("messages_column goes with task chat")
        if self.prompt.query_column is not None and self.task is not Task.RERANK:
            raise ValueError("query_column goes with task rerank")
        return self

    @property
    def fingerprint(self) -> str:
        """The same for two jobs that compute the same of the same rows, wherever the model's files lie."""
        content = self.model_copy(update={"model": self.model.model_copy(update={"source": ""})}).model_dump_json()
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def changes_to(self, other: "JobSpec") -> list[str]:
        """Names each field in which the other differs, with both values; where a model's files lie does not matter."""
        mine, theirs = dict(_leaves(self.model_dump(mode="json"))), dict(_leaves(other.model_dump(mode="json")))
        return [f"{name} was {mine[name]!r} and is {theirs[name]!r}" for name in mine if name != "model.source" and mine[name] != theirs[name]]


class RowGroup(JobRecord):
    """A part of a file that can be read by itself. `offset_bytes` is where it begins, in files of lines; `text_bytes` what it holds."""

    rows: int = Field(ge=0)
    offset_bytes: int = Field(default=0, ge=0)
    text_bytes: int = Field(default=0, ge=0)


class InputFile(JobRecord):
    """One file of the dataset as it was when the job was planned.

    `edges` is a hash of its first and last bytes; `partition` holds the values that its folders' names give to columns.
    """

    uri: str
    format: InputFormat
    size_bytes: int
    modified_ns: int
    edges: str
    groups: tuple[RowGroup, ...]
    partition: dict[str, str | None] = {}

    @property
    def rows(self) -> int:
        """How many it has."""
        return sum(group.rows for group in self.groups)


class RowSlice(JobRecord):
    """Consecutive rows of one row group: `start` is the first one's ordinal."""

    file: int
    row_group: int
    start: int
    rows: int


class ShardPlan(JobRecord):
    """The rows that are computed and committed together, in input order."""

    number: int
    slices: tuple[RowSlice, ...]
    estimated_tokens: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(part.rows for part in self.slices)

    def identities(self) -> Iterator[tuple[int, int, int]]:
        """(file, row group, ordinal) of each row."""
        for part in self.slices:
            for ordinal in range(part.start, part.start + part.rows):
                yield part.file, part.row_group, ordinal


class JobPlan(JobRecord):
    """Every row of the job. `arrow_schema` is that of the input columns, as an IPC message in base64."""

    version: int = VERSION
    files: tuple[InputFile, ...]
    arrow_schema: str
    shards: tuple[ShardPlan, ...]

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(shard.rows for shard in self.shards)

    @property
    def estimated_tokens(self) -> int:
        """Prompt tokens, by a rule of thumb."""
        return sum(shard.estimated_tokens for shard in self.shards)


def _leaves(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, entry in value.items():
        if isinstance(entry, dict):
            yield from _leaves(entry, f"{above}{name}.")
        else:
            yield above + name, entry
