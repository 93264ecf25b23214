"""Wakes workers by Celery messages, which carry ids and nothing else."""

from types import MappingProxyType

import structlog
from celery import Celery
from celery.exceptions import OperationalError

from pipeline.offline.jobs.errands import Errand, Kind

log = structlog.get_logger(__name__)

QUEUES = MappingProxyType({Kind.PLAN: "plan", Kind.SCORE: "score", Kind.FINALISE: "finalise", Kind.NOTIFY: "finalise"})
TASKS = MappingProxyType(
    {Kind.PLAN: "penstock.plan", Kind.SCORE: "penstock.score_shard", Kind.FINALISE: "penstock.finalise", Kind.NOTIFY: "penstock.notify"}
)
RETRY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}


class CeleryCaller:
    """Sends messages by an application's broker. One that is away costs a warning: whoever reconciles calls again."""

    def __init__(self, app: Celery):
        self._app = app

    def call(self, errand: Errand) -> None:
        """Wakes somebody for an errand."""
        ids = (errand.job, errand.shard) if errand.kind is Kind.SCORE else (errand.job,)
        try:
            self._app.send_task(TASKS[errand.kind], ids, queue=QUEUES[errand.kind], retry=True, retry_policy=RETRY)
        except (OperationalError, OSError) as error:
            log.warning("broker_away", job=errand.job, errand=errand.name, detail=type(error).__name__)

    def is_idle(self) -> bool:
        """Whether no message waits for somebody to score; not so where the broker does not say."""
        with self._app.connection_for_read() as connection:
            try:
                connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=2.0)
                return not connection.default_channel.queue_declare(QUEUES[Kind.SCORE], passive=True).message_count
            except connection.channel_errors:  # there is no such queue while it is empty
                return True
            except (OperationalError, OSError, *connection.connection_errors):
                return False
