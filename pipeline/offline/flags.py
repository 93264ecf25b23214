"""Pause and cancel: files in a job's folder, which whoever works on the job looks for between steps."""

import time
from collections.abc import Callable

from pipeline.offline import files
from pipeline.offline.folder import Folder
from pipeline.offline.scoring import Halt

LOOK_S = 0.5
_NAMES = dict(zip((Halt.CANCELLED, Halt.PAUSED), Folder.FLAGS, strict=True))


def raise_flag(folder: Folder, halt: Halt) -> None:
    """Asks everybody who works on the job to pause or to end."""
    files.replace(folder.path / _NAMES[halt], b"")


def lower_pause(folder: Folder) -> None:
    """Lets the job go on. What is cancelled stays so."""
    (folder.path / _NAMES[Halt.PAUSED]).unlink(missing_ok=True)


def read_flag(folder: Folder) -> Halt | None:
    """What is asked for, if anything; a cancel before a pause."""
    return next((halt for halt, name in _NAMES.items() if (folder.path / name).exists()), None)


def watch(folder: Folder, clock_s: Callable[[], float] = time.monotonic) -> Callable[[], Halt | None]:
    """A way to ask often and look seldom."""
    seen: Halt | None = None
    looked_s = -LOOK_S

    def look() -> Halt | None:
        nonlocal seen, looked_s
        now_s = clock_s()
        if now_s - looked_s >= LOOK_S:
            looked_s, seen = now_s, read_flag(folder)
        return seen

    return look
