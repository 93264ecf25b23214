"""One shard while it is being computed: its lock, its journal, and what of it comes next."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from pipeline.offline.answer import Answer
from pipeline.offline.committing import write_shard
from pipeline.offline.journal import Journal
from pipeline.offline.ledger import Ledger, ShardLock
from pipeline.offline.plan import Job
from pipeline.offline.prompts import Ask
from pipeline.offline.refusals import Fault
from pipeline.offline.suspects import within
from pipeline.offline.tasks import GENERATING
from pipeline.offline.windows import ShardReader, Window, in_groups, in_order
from schemas.errors import EngineError
from schemas.job import ShardPlan

KILLER = Fault(EngineError.code, "the process that computed this row died of it, again and again")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are journalled and submitted together; those under suspicion while nothing else is in flight."""

    run: "ShardRun"
    asks: Sequence[Ask]
    is_alone: bool


@dataclass(slots=True, eq=False)
class ShardRun:
    """One attempt at a shard.

    Attributes:
        is_read: Whether all its windows have been handed out.
    """

    job: Job
    plan: ShardPlan
    lock: ShardLock
    journal: Journal
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    is_read: bool = False

    @classmethod
    def open(cls, job: Job, shard: ShardPlan) -> Self | None:
        """Begins an attempt; None where the shard is done, or somebody else works on it."""
        ledger = Ledger(job.folder)
        lock = ledger.lock(shard.number)
        if lock is None:
            return None
        if ledger.is_committed(shard.number):
            lock.release()
            return None
        try:
            return cls(job, shard, lock, Journal(job.folder.journal, job.folder.shard_name(shard.number), job.spec.task))
        except BaseException:
            lock.release()
            raise

    @property
    def is_answered(self) -> bool:
        """Whether every row has its answer."""
        return self.is_read and len(self.journal.finished) == self.plan.rows

    def batches(self, window: Window) -> Iterator[Batch]:
        """Cuts a window into batches, those under suspicion first."""
        suspicion = self.journal.suspicion
        asks = {ask.row: ask for ask in window.asks if ask.row not in suspicion.convicted}
        for rows in within(suspicion.groups, frozenset(asks)):
            yield Batch(self, [asks.pop(row) for row in rows], is_alone=True)
        for group in in_groups(in_order(list(asks.values()), is_generation=self.job.spec.task in GENERATING)):
            yield Batch(self, group, is_alone=False)

    def known(self, window: Window) -> list[Answer]:
        """Answers to the rows of a window that no model has to see."""
        convicted = self.journal.suspicion.convicted
        return window.known + [Answer(row=ask.row, fault=KILLER) for ask in window.asks if ask.row in convicted]

    def commit(self, reader: ShardReader, dtype: str) -> bool:
        """Writes and commits the shard; tells whether this attempt was the one that did."""
        try:
            answers = self.journal.answers()
            written = write_shard(self.job, self.plan, answers, reader, dtype=dtype, started_ms=self.started_ms)
            if self.job.store is not None:  # first: what is committed is there for readers
                self.job.store.take(self.job.folder.path, written.files)
            is_first = Ledger(self.job.folder).commit(written)
        except BaseException:
            self.release()
            raise
        self.journal.remove()
        self.lock.release()
        return is_first

    def release(self) -> None:
        """Ends the attempt in good order; another one goes on from here."""
        self.journal.release()
        self.lock.release()

    def forsake(self) -> None:
        """Ends the attempt as a death does: what is in flight is under suspicion."""
        self.journal.flush()
        self.journal.close()
        self.lock.release()
