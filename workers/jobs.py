"""The composition root of whoever works on jobs or speaks to those who do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.offline.confinement import Confinement
from pipeline.offline.estimating import Estimate, estimate
from pipeline.offline.flight.address import WorkerAddress
from pipeline.offline.flight.client import FlightScorer
from pipeline.offline.jobs import notices
from pipeline.offline.jobs.driver import Driver
from pipeline.offline.jobs.errands import Caller, Patience
from pipeline.offline.jobs.registry import is_own, open_registry
from pipeline.offline.jobs.rooms import open_turnstile, passing
from pipeline.offline.plan import Job
from pipeline.offline.prompts import Asking
from pipeline.settings import JobsSettings, Settings

LOCAL = "memory://"


def is_local(jobs: JobsSettings) -> bool:
    """Whether messages stay within one process."""
    return jobs.broker_url.get_secret_value().startswith(LOCAL)


def confinement(settings: Settings) -> Confinement | None:
    """What submitted jobs may read and write; None where that is whatever this user may, who alone can list jobs."""
    jobs = settings.jobs
    if jobs.roots is None and is_own(open_registry(settings).root):
        return None
    return Confinement(jobs.roots or (), jobs.stores, jobs.output_stores)


def estimate_on_worker(settings: Settings, job: Job, cost_per_hour: float | None) -> Estimate:
    """Has the worker that jobs go to compute a sample.

    Raises:
        WorkerAway: Nobody answers there.
        WorkerDied: It ended with the sample.
        JobRefused: It does not do this job.
    """
    jobs = settings.jobs
    address = WorkerAddress.of(jobs.worker, settings)
    with passing(settings, jobs.worker) as turnstile, FlightScorer(address, job.spec, patience_s=jobs.worker_wait_s) as scorer:
        scorer.check(Asking(job.spec))
        return estimate(job, scorer, cost_per_hour=cost_per_hour, turnstile=turnstile)


def build_driver(settings: Settings, caller: Caller, is_stopping: Callable[[], bool]) -> Driver:
    """Puts the parts together."""
    jobs = settings.jobs
    suited: set[Path] = set()

    @contextmanager
    def door(job: Job) -> Iterator[FlightScorer]:
        address = WorkerAddress.of(jobs.worker, settings)
        with FlightScorer(address, job.spec, patience_s=jobs.worker_wait_s) as scorer:
            if job.folder.path not in suited:  # a worker of other files is refused each time; this costs a row
                scorer.check(Asking(job.spec))
                suited.add(job.folder.path)
            yield scorer

    return Driver(
        open_registry(settings),
        caller,
        doors=door,
        turnstile=lambda: open_turnstile(settings, jobs.worker),
        window=jobs.window,
        patience=Patience(jobs.reconcile_s, jobs.visibility_timeout_s),
        is_stopping=is_stopping,
        tell=lambda home: notices.tell(home, jobs),
        within=confinement(settings),
    )
