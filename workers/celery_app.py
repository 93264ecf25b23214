"""Celery for background jobs: the queues, what a message may be, and what happens when a worker dies.

`celery -A workers.celery_app worker` runs one with the settings of the environment; `penstock celery` takes flags and a file as well.
"""

import mmap
import signal
import warnings
from collections.abc import Sequence
from typing import Any

import structlog
from celery import Celery, bootsteps, platforms, signals
from celery.platforms import SecurityWarning

from pipeline.logs import configure_logging
from pipeline.offline.confinement import OUTPUT_STORES, ROOTS
from pipeline.offline.jobs.driver import Driver
from pipeline.offline.jobs.errands import Kind
from pipeline.settings import BadConfiguration, JobsSettings, Settings, load
from workers.caller import QUEUES, CeleryCaller
from workers.jobs import build_driver, confinement, is_local
from workers.tasks import register

log = structlog.get_logger(__name__)

LOCAL_RECONCILE_S = 1.0
"""Where no message can come from another process, looking is the only way to hear of a job."""
PROC_ALIVE_S = 300.0
"""A child that is slow to start is not killed for it."""
SOFT_SHUTDOWN_S = 60.0
"""What a second signal leaves a shard to write down where it stands."""


def client(settings: Settings) -> Driver:
    """A driver that sends messages and does nothing itself."""
    return build_driver(settings, CeleryCaller(_application(settings.jobs)), lambda: True)


def build(settings: Settings) -> Celery:
    """Makes the application of a worker with these settings."""
    jobs = settings.jobs
    app = _application(jobs)
    stopping = Stopping()
    driver = build_driver(settings, CeleryCaller(app), stopping)
    register(app, driver)
    period_s = LOCAL_RECONCILE_S if is_local(jobs) else jobs.reconcile_s
    app.steps["worker"].add(_reconciler(driver.reconcile, period_s))
    signals.setup_logging.connect(lambda **_: configure_logging(settings.log), weak=False)
    signals.worker_shutting_down.connect(lambda **_: stopping.ask(), weak=False)
    signals.worker_process_init.connect(lambda **_: _leave_signals_to_the_parent(), weak=False)
    return app


def _application(jobs: JobsSettings) -> Celery:
    app = Celery("penstock", broker=jobs.broker_url.get_secret_value(), set_as_current=False)
    app.conf.update(configuration(jobs))
    if jobs.signing_key is not None:
        app.setup_security(serializer="json")
    return app


def run(settings: Settings, queues: Sequence[str], *, with_parent: bool = False) -> None:
    """Runs a worker in this process until it is told to stop.

    Args:
        settings: Its settings.
        queues: Those that it takes tasks from; all of them if none are named.
        with_parent: Whether it ends when the process that started it does, however that ends.

    Raises:
        BadConfiguration: There is no such queue.
    """
    known = set(QUEUES.values())
    if unknown := set(queues) - known:
        raise BadConfiguration(f"there is no queue {min(unknown)!r}; they are {', '.join(sorted(known))}")
    warnings.filterwarnings("ignore", category=SecurityWarning)  # of root, for what pickles could do: none are taken
    within = confinement(settings)
    if within is not None and not (within.roots or within.output_stores):
        log.warning("jobs_will_fail", detail=f"others can list jobs too, and neither {ROOTS} nor {OUTPUT_STORES} names a place for their results")
    if with_parent:
        platforms.set_pdeathsig("SIGTERM")
    chosen = ["-Q", ",".join(queues)] if queues else []
    build(settings).start(["--quiet", "worker", "--without-gossip", "--without-mingle", "--without-heartbeat", *chosen])


def configuration(jobs: JobsSettings) -> dict[str, Any]:
    """Celery's own settings. Messages carry ids and nothing else; no result is kept; a task is acknowledged when it has ended."""
    content = "json" if jobs.signing_key is None else "auth"
    return {
        "accept_content": [content],
        "task_serializer": content,
        "event_serializer": content,
        "result_backend": None,
        "task_ignore_result": True,
        "task_queues": {name: {"exchange": name, "routing_key": name} for name in QUEUES.values()},
        "task_default_queue": QUEUES[Kind.PLAN],
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # it would deliver a killer again and again; the job's own count of deaths ends
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": jobs.concurrency,
        "worker_pool": "threads" if is_local(jobs) else "prefork",
        "worker_proc_alive_timeout": PROC_ALIVE_S,
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_S,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # a shard does not need the broker, and may come twice
        "worker_enable_remote_control": False,  # whoever reaches the broker could stop workers, and those messages are not signed
        "worker_hijack_root_logger": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": _transport(jobs),
        "security_key": None if jobs.signing_key is None else str(jobs.signing_key),
        "security_certificate": None if jobs.signing_certificate is None else str(jobs.signing_certificate),
        "security_cert_store": jobs.signing_trusted,
    }


def _transport(jobs: JobsSettings) -> dict[str, Any]:
    url = jobs.broker_url.get_secret_value()
    if is_local(jobs):
        return {"polling_interval": 0.05}
    if url.startswith(("redis://", "rediss://")):
        return {"visibility_timeout": jobs.visibility_timeout_s, "socket_connect_timeout": 5.0, "socket_keepalive": True, "health_check_interval": 10}
    return {}


class Stopping:
    """Whether the worker was asked to leave: a byte that it shares with the children it forks."""

    def __init__(self) -> None:
        self._flag = mmap.mmap(-1, 1)

    def ask(self) -> None:
        """Asks all tasks to come to an end."""
        self._flag[0] = 1

    def __call__(self) -> bool:
        """Whether they were asked."""
        return self._flag[0] == 1


def _leave_signals_to_the_parent() -> None:
    """A service manager's SIGTERM reaches the children as well; dying of it they would look as if a row had killed them."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _reconciler(reconcile: Any, period_s: float) -> type[bootsteps.StartStopStep]:
    """A step of the worker that reconciles when it starts and every so often."""

    class Reconciler(bootsteps.StartStopStep):  # type: ignore[misc] # Celery ships no types
        requires = {"celery.worker.components:Timer", "celery.worker.components:Pool"}  # noqa: RUF012 -- Celery's own way to say it

        def start(self, worker: Any) -> None:
            worker.timer.call_after(0.1, reconcile)
            self._entry = worker.timer.call_repeatedly(period_s, reconcile)

        def stop(self, worker: Any) -> None:  # noqa: ARG002 -- Celery's signature
            self._entry.cancel()

    return Reconciler


def __getattr__(name: str) -> Any:
    """Makes `app` when somebody asks for it: importing this module reads no settings."""
    if name != "app":
        raise AttributeError(name)
    globals()["app"] = app = build(load())
    return app
