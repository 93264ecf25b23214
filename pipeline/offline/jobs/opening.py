"""The plans of jobs, each of them read once."""

from functools import lru_cache
from pathlib import Path

from pipeline.offline.addresses import store_of
from pipeline.offline.confinement import Confinement
from pipeline.offline.jobs.registry import Home
from pipeline.offline.plan import Job, open_job

OPEN_JOBS = 8
"""Plans that are kept read; a process seldom works on more jobs at a time."""


def open_planned(home: Home, within: Confinement | None) -> Job:
    """A job whose plan is there, and never changes.

    Raises:
        JobRefused: It cannot be resumed.
    """
    return _read(home.folder.path, home.folder.plan_file.stat().st_mtime_ns, within, store_of(home.submission.out))


@lru_cache(OPEN_JOBS)
def _read(path: Path, _planned_ns: int, within: Confinement | None, store: str | None) -> Job:
    return open_job(path, within, store)
