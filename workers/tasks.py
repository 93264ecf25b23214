"""Celery's tasks: thin calls into the driver of jobs."""

from collections.abc import Callable

import structlog
from celery import Celery

from pipeline.offline.jobs.driver import Driver
from pipeline.offline.jobs.errands import Kind
from pipeline.offline.jobs.registry import UnknownJob
from workers.caller import TASKS

log = structlog.get_logger(__name__)


def register(app: Celery, driver: Driver) -> None:
    """Gives an application its tasks."""

    def plan(job: str) -> None:
        _do(job, lambda: driver.plan(job))

    def score_shard(job: str, shard: int) -> None:
        _do(job, lambda: driver.score(job, shard))

    def finalise(job: str) -> None:
        _do(job, lambda: driver.finalise(job))

    def notify(job: str) -> None:
        _do(job, lambda: driver.notify(job))

    for kind, task in {Kind.PLAN: plan, Kind.SCORE: score_shard, Kind.FINALISE: finalise, Kind.NOTIFY: notify}.items():
        app.task(task, name=TASKS[kind])


def _do(job: str, errand: Callable[[], None]) -> None:
    try:
        errand()
    except UnknownJob:
        log.warning("unknown_job", job=job)
