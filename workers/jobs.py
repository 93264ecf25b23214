"""The composition root of whoever works on jobs or speaks to those who do."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.offline.flight.address import WorkerAddress
from pipeline.offline.flight.client import FlightScorer
from pipeline.offline.jobs import notices
from pipeline.offline.jobs.driver import Driver
from pipeline.offline.jobs.errands import Caller, Patience
from pipeline.offline.jobs.registry import Registry
from pipeline.offline.plan import Job
from pipeline.offline.prompts import Asking
from pipeline.offline.turnstile import Turnstile
from pipeline.settings import Settings


def open_registry(settings: Settings) -> Registry:
    """The registry of jobs that the settings name."""
    return Registry(settings.jobs.folder or settings.data_dir / "jobs")


def build_driver(settings: Settings, caller: Caller, is_stopping: Callable[[], bool]) -> Driver:
    """Puts the parts together."""
    jobs = settings.jobs
    registry = open_registry(settings)
    room = hashlib.blake2b(f"{jobs.worker}\0{settings.data_dir.absolute()}".encode(), digest_size=8).hexdigest()

    suited: set[Path] = set()

    @contextmanager
    def door(job: Job) -> Iterator[FlightScorer]:
        address = WorkerAddress.of(jobs.worker, settings)
        with FlightScorer(address, job.spec, patience_s=jobs.worker_wait_s) as scorer:
            if job.folder.path not in suited:  # a worker of other files is refused each time; this costs a row
                scorer.check(Asking(job.spec))
                suited.add(job.folder.path)
            yield scorer

    def turnstile() -> Turnstile:
        return Turnstile(_rooms(registry.root), room)

    return Driver(
        registry,
        caller,
        doors=door,
        turnstile=turnstile,
        window=jobs.window,
        patience=Patience(jobs.reconcile_s, jobs.visibility_timeout_s),
        is_stopping=is_stopping,
        tell=lambda home: notices.tell(home, jobs),
    )


def _rooms(root: Path) -> Path:
    return root / "rooms"
