"""One caller's rows between three threads: one reads them, the worker's loop takes them and answers, one writes the answers.

All that they share is here, under one lock, and bounded: what is held of a caller's rows, read and not yet written back, stays below
a number of rows, and what waits for the loop below a number of bytes as well. At the bound the reading thread stops reading, and the
network holds the caller back.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from pipeline.offline.answer import Answer
from pipeline.offline.flight.wire import Row, Wanted

WAITING_BYTES = 4 * 1024 * 1024
LOOK_S = 0.1
"""How often a thread that waits looks whether its caller is still there."""

Numbered = tuple[int, Answer]


class Ended(Exception):
    """Why an exchange ended before its rows were answered.

    Attributes:
        is_retryable: Whether the same rows may be sent again, here or to whoever comes after.
    """

    def __init__(self, message: str, *, is_retryable: bool):
        super().__init__(message)
        self.message = message
        self.is_retryable = is_retryable


class Unsound(Ended):
    """What a caller sent is not for this door, and would not be if it came again."""

    def __init__(self, message: str):
        super().__init__(message, is_retryable=False)


class Exchange:
    """The rows of one caller.

    Args:
        wanted: What is asked of them.
        rows: How many are held at a time.
    """

    def __init__(self, wanted: Wanted, *, rows: int):
        self.wanted = wanted
        self._limit_rows = rows
        self._lock = threading.Lock()
        self._room, self._news = threading.Condition(self._lock), threading.Condition(self._lock)  # for whoever reads, and whoever writes
        self._waiting: deque[Row] = deque()
        self._waiting_bytes = 0
        self._answers: list[Numbered] = []
        self._held_rows = 0
        self._is_all_read = False
        self._ended: Ended | None = None
        self.most_held_rows = 0
        self.answered_rows = 0

    # ── The reading thread's side ────────────────────────────────────────────────────────────────────────────────────

    def put(self, row: Row, is_gone: Callable[[], bool]) -> bool:
        """Hands a row in, waiting for room; False once nobody takes it any more."""
        with self._lock:
            while not (self._ended or self._has_room()):
                self._room.wait(LOOK_S)
                if is_gone():
                    return False
            if self._ended is not None:
                return False
            self._waiting.append(row)
            self._waiting_bytes += row.size_bytes
            self._held_rows += 1
            self.most_held_rows = max(self.most_held_rows, self._held_rows)
            return True

    def finish(self) -> None:
        """Says that there are no more rows."""
        with self._lock:
            self._is_all_read = True
            self._news.notify_all()

    # ── The loop's side ──────────────────────────────────────────────────────────────────────────────────────────────

    def take(self) -> Row | None:
        """The next row, if one waits."""
        if not self._waiting:  # every step asks: without the lock
            return None
        with self._lock:
            if not self._waiting:
                return None
            row = self._waiting.popleft()
            was_full = self._waiting_bytes >= WAITING_BYTES
            self._waiting_bytes -= row.size_bytes
            if was_full:
                self._room.notify_all()
            return row

    def give(self, answers: Sequence[Numbered]) -> None:
        """Hands answers back; it never waits, for there are no more answers than rows held."""
        with self._lock:
            self._answers += answers
            self._news.notify_all()

    # ── The writing thread's side ────────────────────────────────────────────────────────────────────────────────────

    def answers(self, wait_s: float = LOOK_S) -> list[Numbered] | None:
        """Takes the answers that there are, waiting a moment for the first; None when all rows are answered.

        Raises:
            Ended: Something ended the exchange, and what was answered before is taken.
        """
        with self._lock:
            self._news.wait_for(lambda: self._answers or self._is_over(), wait_s)
            taken, self._answers = self._answers, []
            if not taken and self._ended is not None:
                raise self._ended
            return None if not taken and self._is_over() else taken

    def written(self, rows: int) -> None:
        """Makes room: the caller has these answers."""
        with self._lock:
            self._held_rows -= rows
            self.answered_rows += rows
            self._room.notify_all()

    # ── All ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def has_ended(self) -> bool:
        """Whether nobody wants the answers that are still missing."""
        return self._ended is not None

    def is_done(self) -> bool:
        """Whether there is nothing more to do."""
        return self._is_over()

    def end(self, why: Ended) -> None:
        """Ends it before its rows are answered; the first reason counts."""
        with self._lock:
            self._ended = self._ended or why
            self._waiting.clear()
            self._room.notify_all()
            self._news.notify_all()

    def _has_room(self) -> bool:
        return self._held_rows < self._limit_rows and (not self._waiting or self._waiting_bytes < WAITING_BYTES)

    def _is_over(self) -> bool:
        return self._ended is not None or (self._is_all_read and self._held_rows == 0)
