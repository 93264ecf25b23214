"""What there is to do for a job, who was called to do it, and who is at it.

A call is a hint: the message may be lost, and then the errand is called out again, the later the more often it was. Who is at an
errand holds a lock, which ends with its holder.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pipeline.offline import files
from pipeline.offline.folder import Folder
from pipeline.offline.ledger import ShardLock

GRACE_S = 3.0
"""From a message's delivery to the lock, at the longest; then the message was lost."""
TRIES, TRY_S = 5, 0.02
"""A lock may be held for a moment by one who only looks whether it is."""


class Kind(StrEnum):
    """What is to be done, and the queue that it goes by."""

    PLAN = "plan"
    SCORE = "score"
    FINALISE = "finalise"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True)
class Errand:
    """One thing to do. `shard` goes with `SCORE`."""

    kind: Kind
    job: str
    shard: int = 0

    @property
    def name(self) -> str:
        """What its notes are called."""
        return Folder.shard_name(self.shard) if self.kind is Kind.SCORE else self.kind.value


class Caller(Protocol):
    """Sends messages that wake those who work on jobs. A message that cannot be sent is lost, like any other."""

    def call(self, errand: Errand) -> None:
        """Wakes somebody for an errand."""
        ...

    def is_idle(self) -> bool:
        """Whether no message waits for somebody to score."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may go unanswered: `first_s`, twice as long after each one, at most `longest_s`."""

    first_s: float
    longest_s: float

    def is_over(self, age_s: float, calls: int, *, is_idle: bool) -> bool:
        """Whether to call again, so long after the last of so many calls. Where nobody is busy, a call is answered soon or was lost."""
        return age_s >= (GRACE_S if is_idle else min(self.first_s * 2.0 ** min(calls, 30), self.longest_s))


@dataclass(frozen=True, slots=True)
class Board:
    """The notes on one job's errands."""

    folder: Path

    def post(self, errand: Errand) -> bool:
        """Notes that an errand is called out; tells whether it was not before."""
        with suppress(FileExistsError, FileNotFoundError):
            self._called(errand).touch(exist_ok=False)
            return True
        return False

    def post_again(self, errand: Errand, patience: Patience, *, is_idle: bool) -> bool:
        """Notes another call, if it is time for one and nobody is at it; tells whether it is."""
        try:
            noted = self._called(errand).stat()
        except FileNotFoundError:
            return self.post(errand)
        if not patience.is_over(time.time() - noted.st_mtime, noted.st_size, is_idle=is_idle) or self.is_attended(errand):
            return False
        with suppress(FileNotFoundError), self._called(errand).open("ab") as file:  # a byte per call: its size is their number
            file.write(b".")
        return True

    def strike(self, errand: Errand) -> None:
        """Takes the call back: the errand may be called out anew."""
        self._called(errand).unlink(missing_ok=True)

    def finish(self, errand: Errand) -> None:
        """Takes all notes on an errand away: it is done."""
        self.strike(errand)
        self._progress(errand).unlink(missing_ok=True)

    @contextmanager
    def attend(self, errand: Errand) -> Iterator[bool]:
        """Is at an errand, for as long as it takes; gives False where somebody else is."""
        lock = self._take(errand)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    def is_attended(self, errand: Errand) -> bool:
        """Whether somebody is at it."""
        path = self._lock(errand)
        if not path.exists():
            return False
        lock = ShardLock.take(path)
        if lock is None:
            return True
        lock.release()
        return False

    def note(self, errand: Errand, progress: bytes) -> None:
        """Notes how far it is."""
        with suppress(FileNotFoundError):  # the job is over
            path = self._progress(errand)
            temporary = files.temporary_beside(path)
            temporary.write_bytes(progress)
            temporary.replace(path)

    def notes(self) -> Iterator[tuple[int, bytes]]:
        """How far the shards are that somebody is at, by number."""
        for path in self.folder.glob("*.progress"):
            with suppress(FileNotFoundError):
                yield int(path.stem), path.read_bytes()

    def _take(self, errand: Errand) -> ShardLock | None:
        for _ in range(TRIES):
            try:
                lock = ShardLock.take(self._lock(errand))
            except FileNotFoundError:  # the job is over
                return None
            if lock is not None:
                return lock
            time.sleep(TRY_S)
        return None

    def _called(self, errand: Errand) -> Path:
        return self.folder / f"{errand.name}.called"

    def _lock(self, errand: Errand) -> Path:
        return self.folder / f"{errand.name}.lock"

    def _progress(self, errand: Errand) -> Path:
        return self.folder / f"{errand.name}.progress"


def make_board(folder: Path) -> Board:
    """The board of a job's folder of errands."""
    with suppress(FileExistsError):
        os.mkdir(folder)  # noqa: PTH102 -- never its parents: a job that is gone stays gone
    return Board(folder)
