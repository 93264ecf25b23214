"""Computes shards: feeds the engine, takes its answers, commits what is complete. The engine never waits for a disk."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

import structlog

from pipeline.offline.answer import Answer
from pipeline.offline.plan import Job
from pipeline.offline.prefetch import Nothing, Prefetch
from pipeline.offline.refusals import JobRefused
from pipeline.offline.scorer import Scorer, Ticket
from pipeline.offline.shard import Batch, ShardRun
from pipeline.offline.turnstile import Turnstile
from pipeline.offline.windows import ShardReader, Window, Windows
from schemas.job import ShardPlan

log = structlog.get_logger(__name__)

FLUSH_S = 0.5
COMMITS_AHEAD = 2
"""Shards that wait to be written; beyond that nothing new is begun, so that a slow disk holds the engine rather than the memory."""


class Halt(StrEnum):
    """Why the job does not go on for now."""

    STOPPED = "stopped"
    PAUSED = "paused"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Progress:
    """Counts since the job began to be computed here. `rows` are those with answers, `fresh_rows` without those of former attempts."""

    rows: int = 0
    fresh_rows: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    shards: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def add(self, answers: Iterable[Answer]) -> None:
        """Counts answers."""
        for answer in answers:
            self.rows += 1
            self.fresh_rows += 1
            self.errors += answer.fault is not None
            self.prompt_tokens += answer.prompt_tokens
            self.output_tokens += answer.output_tokens


class Scoring:
    """Works on shards of one job until they are committed, or something halts it.

    Args:
        job: The job.
        scorer: What computes.
        halt: Asked between steps whether to go on.
        on_progress: Told of the counts every now and then.
        turnstile: The way to a scorer that other processes use as well.
    """

    def __init__(
        self,
        job: Job,
        scorer: Scorer,
        *,
        halt: Callable[[], Halt | None],
        on_progress: Callable[[Progress], None],
        turnstile: Turnstile | None = None,
    ):
        self._job = job
        self._scorer = scorer
        self._halt = halt
        self._on_progress = on_progress
        self._turnstile = turnstile
        self.progress = Progress()
        self._open: list[ShardRun] = []
        self._batches: deque[Batch] = deque()
        self._flying: dict[Ticket, ShardRun] = {}
        self._tickets = count()
        self._is_alone = self._is_all_read = False
        self._commits: deque[Future[bool]] = deque()
        self._flushed_s = time.monotonic()

    def run(self, shards: Iterable[ShardPlan]) -> Halt | None:
        """Computes and commits shards. Those that are done, or that another process works on, are passed over.

        Raises:
            JobRefused: An input has changed.
            OSError: The disk is full, or gone.
        """
        reader, again = ShardReader(self._job), ShardReader(self._job)
        windows = Prefetch(self._read(shards, Windows(self._job, reader)))
        is_sound = True
        with ThreadPoolExecutor(1, "commit") as committer:
            try:
                windows.start()
                return self._work(windows, committer, again)
            except (JobRefused, OSError, KeyboardInterrupt, SystemExit):
                raise  # no row's doing
            except BaseException:
                is_sound = False
                raise
            finally:
                self._scorer.abandon()
                windows.close()
                committer.shutdown(wait=True)
                self._end(is_sound=is_sound)
                reader.close()
                again.close()

    def _work(self, windows: "Prefetch[tuple[ShardRun, Window | None]]", committer: ThreadPoolExecutor, reader: ShardReader) -> Halt | None:
        while not (self._is_all_read and not self._batches and not self._open and not self._commits):
            halt = self._halt()
            if halt is not None and not (halt is Halt.PAUSED and self._flying):  # a pause lets what runs come to its end
                self._batches.clear()
                self._collect(waits=True)
                return halt
            if halt is None:
                self._feed(windows)
            self._take()
            self._commit(committer, reader)
            self._tick()
        return None

    def _feed(self, windows: "Prefetch[tuple[ShardRun, Window | None]]") -> None:
        """Submits batches while there is room. Rows under suspicion get the engine to themselves."""
        while not self._is_alone and len(self._flying) < self._scorer.depth:
            if not self._batches and not self._read_on(windows):
                return
            if self._batches[0].is_alone and self._flying:
                return
            if self._turnstile is not None and not self._enter(self._turnstile):
                return
            batch = self._batches.popleft()
            tickets = [next(self._tickets) for _ in batch.asks]
            batch.run.journal.begin([ask.row for ask in batch.asks])
            self._flying.update(dict.fromkeys(tickets, batch.run))
            self._is_alone = batch.is_alone
            self._scorer.submit(list(zip(tickets, batch.asks, strict=True)))

    def _enter(self, turnstile: Turnstile) -> bool:
        """Whether the next batch may go to a scorer that others use.

        It may have died of their rows while these waited. They are not to be blamed for it, so that they go to one that is met anew.
        """
        is_first = not self._flying
        if not turnstile.admits(is_alone=self._batches[0].is_alone):
            return False
        if is_first:
            self._scorer.abandon()
        return True

    def _read_on(self, windows: "Prefetch[tuple[ShardRun, Window | None]]") -> bool:
        """Takes windows until there are batches; tells whether there are."""
        while not self._batches and not self._is_all_read and len(self._commits) < COMMITS_AHEAD:
            item = windows.take(waits=not self._flying)
            match item:
                case Nothing.YET:
                    return False
                case Nothing.MORE:
                    self._is_all_read = True
                case (run, None):
                    run.is_read = True
                case (run, Window() as window):
                    self._finish(run, run.known(window))
                    self._batches.extend(run.batches(window))
        return bool(self._batches)

    def _take(self) -> None:
        answers: dict[ShardRun, list[Answer]] = {}
        for scored in self._scorer.poll():
            answers.setdefault(self._flying.pop(scored.ticket), []).append(scored.answer)
        for run, those in answers.items():
            self._finish(run, those)
        if not self._flying:
            self._is_alone = False
            if self._turnstile is not None:
                self._turnstile.leave()

    def _finish(self, run: ShardRun, answers: list[Answer]) -> None:
        run.journal.finish(answers)
        self.progress.add(answers)

    def _commit(self, committer: ThreadPoolExecutor, reader: ShardReader) -> None:
        for run in [run for run in self._open if run.is_answered]:
            self._open.remove(run)
            self._commits.append(committer.submit(run.commit, reader, self._scorer.dtype))
        is_idle = not self._flying and not self._batches and (self._is_all_read or len(self._commits) >= COMMITS_AHEAD)
        self._collect(waits=is_idle)

    def _collect(self, *, waits: bool) -> None:
        """Hears of shards that were committed, or why they were not."""
        while self._commits and (waits or self._commits[0].done()):
            self._commits.popleft().result()
            self.progress.shards += 1

    def _tick(self) -> None:
        now_s = time.monotonic()
        if now_s - self._flushed_s >= FLUSH_S:
            self._flushed_s = now_s
            for run in self._open:
                run.journal.flush()
            self._on_progress(self.progress)

    def _end(self, *, is_sound: bool) -> None:
        """Lets go of shards that are not complete."""
        for run in self._open:
            if is_sound:
                run.release()
            else:
                run.forsake()
        self._open.clear()
        self._flying.clear()
        self._on_progress(self.progress)

    def _read(self, shards: Iterable[ShardPlan], windows: Windows) -> Iterator[tuple[ShardRun, Window | None]]:
        """In the reading thread: takes one shard after the other and reads its windows.

        It only ever adds to the open shards, before anybody hears of them, so that those it has begun are let go whatever happens.
        """
        for shard in shards:
            run = ShardRun.open(self._job, shard)
            if run is None:
                continue
            self._open.append(run)
            self.progress.rows += len(run.journal.finished)
            log.info("shard_begun", shard=shard.number, rows=shard.rows, answered=len(run.journal.finished))
            for window in windows.read(shard, frozenset(run.journal.finished)):
                yield run, window
            yield run, None
