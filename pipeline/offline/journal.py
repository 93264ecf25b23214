"""What is known of a shard before it is committed: the rows that are in flight, and the answers so far.

Each attempt writes two files of its own, so that a torn end of a former one is never written on. `.flight` says which rows are
about to be computed, and reaches the disk before the engine sees them; `.answers` is an Arrow stream, read up to where it is torn.
An attempt that ends in good order says so; one that does not has died with what was in flight.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa

from pipeline.offline.answer import Answer, answer_schema, to_batch
from pipeline.offline.files import sync_folder
from pipeline.offline.suspects import Suspicion, suspect
from schemas.job import Task

FLUSH_ANSWERS = 64
FLIGHT, ANSWERS = ".flight", ".answers"
ATTEMPT_DIGITS = 4


class Journal:
    """One attempt at one shard, after the former ones. Held by whoever holds the shard's lock.

    Attributes:
        finished: Rows that have their answers, of this attempt and former ones.
        suspicion: What the former attempts' deaths say.
    """

    def __init__(self, folder: Path, shard: str, task: Task):
        self._folder = folder
        self._shard = shard
        self._schema = answer_schema(task)
        former = self._former()
        finished: set[int] = set()
        deaths: list[frozenset[int]] = []
        for attempt in former:
            for batch in self._batches(attempt):
                finished.update(batch.column("row").to_pylist())
            if dead := _in_flight(attempt.with_suffix(FLIGHT)) - finished:
                deaths.append(frozenset(dead))
        self.finished = finished
        self.suspicion: Suspicion = suspect(deaths, frozenset(finished))
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in former), default=0)
        self._stem = folder / f"{shard}-{number:0{ATTEMPT_DIGITS}d}"
        self._flight: BinaryIO = _create(self._stem.with_suffix(FLIGHT))
        self._answers: BinaryIO = _create(self._stem.with_suffix(ANSWERS))
        self._answers.write(self._schema.serialize())
        self._waiting: list[Answer] = []
        sync_folder(folder)

    def begin(self, rows: Sequence[int]) -> None:
        """Notes rows that the engine is about to get. The answers so far go first: what they are of cannot be to blame for a death from now on."""
        self.flush()
        self._note({"begin": list(rows)})

    def finish(self, answers: Iterable[Answer]) -> None:
        """Notes answers. They may be lost in a crash, and are then computed again."""
        for answer in answers:
            self.finished.add(answer.row)
            self._waiting.append(answer)
        if len(self._waiting) >= FLUSH_ANSWERS:
            self.flush()

    def flush(self) -> None:
        """Hands the answers so far to the operating system: the end of this process does not lose them."""
        if self._waiting:
            self._answers.write(to_batch(self._waiting, self._schema).serialize())
            self._answers.flush()
            self._waiting.clear()

    def release(self) -> None:
        """Ends the attempt in good order: what is still in flight did not kill anybody."""
        self.flush()
        self._note({"released": True})
        self.close()

    def close(self) -> None:
        """Closes the files."""
        self._flight.close()
        self._answers.close()

    def answers(self) -> Any:
        """All answers so far as a table, in the order of rows; the first one of a row counts."""
        self.flush()
        batches = [batch for attempt in self._former() for batch in self._batches(attempt)]
        table = pa.Table.from_batches(batches, schema=self._schema)
        rows = table.column("row").to_pylist()
        first: dict[int, int] = {}
        for place, row in enumerate(rows):
            first.setdefault(row, place)
        return table.take(pa.array([first[row] for row in sorted(first)], pa.int64()))

    def remove(self) -> None:
        """Takes the shard's files away, once it is committed."""
        self.close()
        for attempt in self._former():
            for suffix in (FLIGHT, ANSWERS):
                attempt.with_suffix(suffix).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _note(self, entry: dict[str, Any]) -> None:
        self._flight.write(json.dumps(entry).encode() + b"\n")
        self._flight.flush()
        os.fsync(self._flight.fileno())

    def _former(self) -> list[Path]:
        """All attempts there are, the first one first."""
        return sorted(self._folder.glob(f"{self._shard}-*{FLIGHT}"))

    def _batches(self, attempt: Path) -> Iterator[Any]:
        """An attempt's answers, up to where the file is torn."""
        with suppress(pa.ArrowException, OSError, StopIteration), pa.OSFile(str(attempt.with_suffix(ANSWERS))) as file:
            reader = pa.ipc.open_stream(file)
            while True:
                batch = reader.read_next_batch()
                batch.validate(full=True)
                yield batch


def _in_flight(path: Path) -> set[int]:
    """Rows that an attempt began, unless it ended in good order. A torn line was never acted on."""
    begun: set[int] = set()
    for line in path.read_bytes().split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "released" in entry:
            return set()
        begun.update(entry["begin"])
    return begun


def _create(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb")  # noqa: PTH123 -- a descriptor, not a path
