"""Rows under suspicion get a GPU worker to themselves, also from other processes: who kills it then is known.

Two locks that the kernel releases with their holder. Whoever submits shares the room; a suspect wants it alone. It first takes
the turnstile, through which everybody passes before submitting, so that the room empties and it is not kept waiting for ever.
"""

import fcntl
import os
import time
from pathlib import Path

WAIT_S = 0.02
"""Between two looks while nothing of one's own is in flight."""


class Turnstile:
    """One process's way to a GPU worker. Its files name the worker."""

    def __init__(self, folder: Path, worker: str):
        folder.mkdir(parents=True, exist_ok=True)
        self._gate = _open(folder / f"{worker}.gate")
        self._room = _open(folder / f"{worker}.room")
        self._is_in = self._is_alone = False

    def admits(self, *, is_alone: bool) -> bool:
        """Whether rows may be submitted now. It stays entered until `leave`."""
        passed = self._enter_alone() if is_alone else self._enter()
        if not passed and not self._is_in:
            time.sleep(WAIT_S)
        return passed

    def leave(self) -> None:
        """Nothing is in flight any more. Who waits to be alone keeps waiting."""
        if self._is_in:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            fcntl.flock(self._gate, fcntl.LOCK_UN)
            self._is_in = self._is_alone = False

    def close(self) -> None:
        """Lets go of everything."""
        os.close(self._gate)
        os.close(self._room)

    def _enter(self) -> bool:
        if not _try(self._gate, fcntl.LOCK_SH):
            return False
        self._is_in = self._is_in or _try(self._room, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        return self._is_in

    def _enter_alone(self) -> bool:
        self._is_alone = self._is_alone or _try(self._gate, fcntl.LOCK_EX)
        self._is_in = self._is_alone and _try(self._room, fcntl.LOCK_EX)
        return self._is_in


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
