"""How a job stands, by its folder: what is committed, and what those who are at it say."""

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pipeline.offline.jobs.errands import Board
from pipeline.offline.jobs.registry import Home, Submission
from pipeline.offline.reaching import reaching
from pipeline.offline.scoring import Halt, Progress
from schemas.job import JobPlan
from schemas.outcome import JobState, ShardCommit


class Phase(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINALISING = "finalising"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_last(self) -> bool:
        """Whether nothing follows by itself."""
        return self in (Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows and tokens, of shards that are done or on their way."""

    rows: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + asdict(other)[name] for name, value in asdict(self).items()})

    @property
    def tokens(self) -> int:
        """Of prompts and outputs."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a job stands. `counts` hold what is on its way as well; `planned_rows` is None before there is a plan.

    `waiting` is what it waits for, if something is away that it needs; `untold` why its webhook was given up, if it was.
    """

    job: str
    phase: Phase
    output: str
    task: str
    model: str
    submitted_ms: int
    planned_rows: int | None = None
    shards: int = 0
    done_shards: int = 0
    counts: Counts = Counts()
    failure: str | None = None
    waiting: str | None = None
    untold: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As verbs write it."""
        known = asdict(self)
        counts: dict[str, Any] = known.pop("counts")
        return known | counts


class Tally:
    """Counts one job. It reads each commit once, so that it may be asked often."""

    def __init__(self, home: Home):
        self._home = home
        self._plan: JobPlan | None = None
        self._seen: set[int] = set()
        self._committed = Counts()

    def read(self) -> Standing:
        """Looks at the job now.

        Raises:
            StoreAway: The job's folder is away.
            JobRefused: It cannot be reached, now or later.
        """
        submission = self._home.submission
        with reaching(submission.out):
            return self._look(submission)

    def _look(self, submission: Submission) -> Standing:
        standing = Standing(
            job=self._home.id,
            phase=Phase.QUEUED,
            output=submission.out,
            task=submission.spec.task.value,
            model=submission.spec.model.name,
            submitted_ms=submission.submitted_ms,
            failure=self._home.failure,
            untold=self._home.untold,
        )
        self._plan = self._plan or self._home.folder.plan()
        counts = self._count()
        phase = self._phase(standing.failure)
        standing = replace(standing, phase=phase, waiting=None if phase.is_last else self._home.waiting)
        if self._plan is None:
            return standing
        return replace(standing, planned_rows=self._plan.rows, shards=len(self._plan.shards), done_shards=len(self._seen), counts=counts)

    def _phase(self, failure: str | None) -> Phase:
        asked = self._home.asked()
        manifest = self._home.folder.manifest()
        if manifest is not None:
            return Phase.COMPLETED if manifest.state is JobState.COMPLETED else Phase.CANCELLED
        if failure is not None:
            return Phase.FAILED
        if asked is Halt.CANCELLED:
            return Phase.CANCELLED if self._home.is_over else Phase.CANCELLING
        if asked is Halt.PAUSED:
            return Phase.PAUSED
        if self._plan is None:
            return Phase.QUEUED
        return Phase.FINALISING if len(self._seen) == len(self._plan.shards) else Phase.RUNNING

    def _count(self) -> Counts:
        if self._plan is None:
            return Counts()
        for path in self._home.folder.commits.glob("[0-9]*.json"):
            number = int(path.stem)
            if number not in self._seen and (commit := self._home.folder.commit(number)) is not None:
                self._seen.add(number)
                self._committed += _of_commit(commit)
        notes = Board(self._home.errands).notes()
        return sum((Counts(**json.loads(note)) for number, note in notes if number not in self._seen), self._committed)


def encode_progress(progress: Progress) -> bytes:
    """What those who are at a shard say."""
    counts = Counts(rows=progress.rows, errors=progress.errors, prompt_tokens=progress.prompt_tokens, output_tokens=progress.output_tokens)
    return json.dumps(asdict(counts)).encode()


def _of_commit(commit: ShardCommit) -> Counts:
    return Counts(rows=commit.rows, errors=commit.failed_rows, prompt_tokens=commit.usage.prompt_tokens, output_tokens=commit.usage.output_tokens)
