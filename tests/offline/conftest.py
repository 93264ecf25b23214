"""Small jobs on a scripted scorer: what it is asked and what it answers is known."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.offline.answer import Answer
from pipeline.offline.plan import Job, plan
from pipeline.offline.prompts import Ask
from pipeline.offline.scorer import Scored, Ticket
from pipeline.offline.scoring import Halt, Scoring
from schemas.job import JobSpec, ModelSpec, PromptSpec

ROWS = 60
SHARD_ROWS = 16


class Death(BaseException):
    """Stands for the end of the process."""


@dataclass
class Script:
    """A scorer that answers with the prompt in capitals, a few rows per poll, the last ones first."""

    deadly: frozenset[str] = frozenset()
    depth: int = 8
    seen: list[str] = field(default_factory=list)
    flying: list[tuple[Ticket, Ask]] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    dtype: str = "float32"

    def submit(self, asks: Sequence[tuple[Ticket, Ask]]) -> None:
        self.flying += asks
        self.submitted += [ask.text for _, ask in asks]

    def poll(self) -> Sequence[Scored]:
        if self.deadly & {ask.request.body.prompt for _, ask in self.flying}:
            raise Death
        done, self.flying = self.flying[-3:], self.flying[:-3]
        self.seen += [ask.request.body.prompt for _, ask in done]
        return [Scored(ticket, answer_to(ask)) for ticket, ask in done]

    def abandon(self) -> None:
        self.flying.clear()


def answer_to(ask: Ask) -> Answer:
    """The answer to a row."""
    text = ask.request.body.prompt
    values = {"output": text.upper(), "output_token_ids": [len(text)], "finish_reason": "stop"}
    return Answer(row=ask.row, values=values, prompt_tokens=len(text), output_tokens=1)


def make_spec(**changes: Any) -> JobSpec:
    """A job that generates from the column `text`."""
    given = {"task": "generate", "prompt": PromptSpec(column="text")} | changes
    return JobSpec(model=ModelSpec(name="m", source="here", fingerprint="f", dtype="auto"), **given)


def texts(rows: int = ROWS) -> list[str]:
    """Prompts of different lengths."""
    return [f"row {number} " + "word " * (number * 7 % 5) for number in range(rows)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A Parquet file in row groups that are no multiple of shards."""
    path = tmp_path / "in" / "rows.parquet"
    path.parent.mkdir()
    parquet.write_table(pa.table({"id": range(ROWS), "text": texts()}), path, row_group_size=25)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the job goes."""
    return tmp_path / "out"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where results go that do not stay in a job's folder."""
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def job(dataset: Path, out: Path) -> Job:
    """A planned job."""
    return plan(make_spec(), [str(dataset)], out, SHARD_ROWS)


def run(job: Job, scorer: Any, halt: Callable[[], Halt | None] = lambda: None) -> Halt | None:
    """Works on what is left of a job."""
    return Scoring(job, scorer, halt=halt, on_progress=lambda _: None).run(tuple(job.commits_missing()))


def outcome(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows of result files, by the order of their names."""
    return [row for path in sorted(paths) for row in parquet.read_table(path).to_pylist()]
