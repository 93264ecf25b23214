"""The composition root of one worker process: builds what the settings ask for, runs the loop, takes it all down in order."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from pipeline.arrow_memory import is_bounded
from pipeline.batches import report
from pipeline.engine.base import Engine
from pipeline.engine.kernels import KERNELS
from pipeline.engine.load_error import LoadError
from pipeline.engine.selection import engine_settings, open_engine
from pipeline.interpreter import keeping_what_is_loaded, share_promptly
from pipeline.logs import configure_logging
from pipeline.loop import Loop
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.opening import OpenDoor, open_door, welcome
from pipeline.scheduling.transit import Transit
from pipeline.settings import BadConfiguration, Settings
from pipeline.telemetry import Metrics
from pipeline.transport import topics
from pipeline.transport.base import BrokerUnavailable, Transport, UnknownTopic
from pipeline.transport.opening import open_transport
from workers.health import HealthServer
from workers.lifecycle import Lifecycle, State
from workers.wiring import build_loop, bulk_rows

log = structlog.get_logger(__name__)

EXIT_OK, EXIT_ERROR, EXIT_UNAVAILABLE, EXIT_CONFIG = 0, 1, 69, 78
CONNECT_S = 30.0
ALIVE_WITHIN_S = 120.0
"""The longest step that still counts as life: a long prompt on a slow CPU takes its time."""


def main(settings: Settings) -> int:
    """Runs a worker until it is told to stop and returns the process's exit code."""
    configure_logging(settings.log)
    share_promptly()
    lifecycle = Lifecycle()
    lifecycle.listen()
    worker = Worker(settings, lifecycle)
    code = _run(worker, settings)
    if worker.is_held_up:  # by a caller that takes no answers: the thread that writes them ends with the process, and with nothing less
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(worker: "Worker", settings: Settings) -> int:
    try:
        with KERNELS.compiling(settings.engine.compile):
            worker.run()
    except (BadConfiguration, LoadError) as error:
        log.error("bad_configuration", detail=str(error))
        return EXIT_CONFIG
    except (BrokerUnavailable, UnknownTopic) as error:
        log.error("log_unavailable", transport=settings.transport.value, detail=str(error))
        return EXIT_UNAVAILABLE
    except Exception:  # the one place: whatever broke, every unanswered request is still in the log
        log.exception("worker_failed")
        return EXIT_ERROR
    return EXIT_OK


class Worker:
    """One process: its models, its place in the group, its doors for health and for rows.

    Attributes:
        is_held_up: Whether a thread of the door for rows could not be ended.
    """

    def __init__(self, settings: Settings, lifecycle: Lifecycle):
        self._settings = settings
        self._lifecycle = lifecycle
        self._metrics = Metrics()
        self._lobby = Lobby(settings.bulk.exchanges)
        self._transit = Transit()
        self.is_held_up = False
        self._loop: Loop | None = None

    def run(self) -> None:
        """Starts everything, loops, and stops in the reverse order."""
        http = self._settings.http
        health = HealthServer(http.host, http.port, live=self._live, ready=self._ready, registry=self._metrics.registry, batches=self._batches)
        try:
            url = health.start()
        except OSError as error:
            raise BadConfiguration(f"http.port (PENSTOCK_HTTP__PORT): can't listen on {http.host}:{http.port}: {error.strerror}") from None
        card = self._settings.data_dir / f"worker-{os.getpid()}.json"
        door: OpenDoor | None = None
        try:
            door = open_door(self._settings, self._lobby)
            if door is not None and not is_bounded():
                log.warning("bulk_door_unbounded", detail="Arrow's memory has no bound here: a caller's compressed rows may take all there is")
            write_card(card, url, None if door is None else door.uri)
            engines = load_engines(self._settings, self._transit)
            transport = open_transport(self._settings, producers_apart=True)
            try:
                self._serve(transport, engines)
            finally:
                transport.close()
                for engine in engines.values():
                    engine.close()
        finally:
            card.unlink(missing_ok=True)
            self.is_held_up = door is not None and not door.close()
            health.close()
            self._lifecycle.state = State.CLOSED

    def _serve(self, transport: Transport, engines: Mapping[str, Engine]) -> None:
        reach(transport, self._settings)
        loop = self._loop = build_loop(self._settings, transport, engines, self._metrics, self._lobby, self._transit)
        self._lobby.open(welcome(self._settings, engines, depth=2 * bulk_rows(self._settings)))
        log.info("started", models=sorted(engines), transport=self._settings.transport.value, group=self._settings.kafka.group_id)
        self._lifecycle.state = State.RUNNING
        try:
            with keeping_what_is_loaded():
                loop.run(self._lifecycle.wants_stop, self._lifecycle.wants_out)
        finally:
            self._lifecycle.state = State.DRAINING
            loop.close()

    def _live(self) -> str | None:
        if self._loop is None or time.monotonic() - self._loop.beat_s < ALIVE_WITHIN_S:
            return None
        return f"no step for {time.monotonic() - self._loop.beat_s:.0f} s"

    def _ready(self) -> str | None:
        if self._loop is None:
            return "loading models"
        if self._lifecycle.wants_stop():
            return "draining"
        return None if self._loop.is_ready else "waiting for the group"

    def _batches(self) -> dict[str, Any]:
        loop = self._loop
        return report({}, {}, 0.0) if loop is None else report(loop.engines, loop.readings, time.monotonic(), loop.answers.first_tokens)


def load_engines(settings: Settings, transit: Transit | None = None) -> dict[str, Engine]:
    """Loads and warms every model, within one plan of the memory; without any in the settings, the one that ships.

    Args:
        settings: Which models, and how.
        transit: How long live requests take to the engine and from it, where somebody observes that.

    Raises:
        LoadError: A model can't be served, or they don't fit together.
    """
    models = settings.served_models
    engines: dict[str, Engine] = {}
    parts = engine_settings(models, settings)
    for model in models:
        started_s = time.monotonic()
        engine = engines[model.name] = open_engine(model, settings, parts[model.name], transit)
        engine.warm_up()
        log.info("model_ready", model=model.name, seconds=round(time.monotonic() - started_s, 1))
    return engines


def reach(transport: Transport, settings: Settings) -> None:
    """Waits for the log and makes the topics that are missing, where the settings allow it.

    Raises:
        BrokerUnavailable: Nobody answers.
        UnknownTopic: Topics are missing and may not be made here.
    """
    log.info("log_reached", about=transport.ping(CONNECT_S))
    plan = topics.plan(transport, topics.contract(settings.kafka))
    for difference in plan.differing:
        log.warning("topic_differs", detail=str(difference))
    if not plan.missing:
        return
    names = ", ".join(spec.name for spec in plan.missing)
    if not settings.kafka.create_topics:
        raise UnknownTopic(f"missing topics: {names}: run `penstock topics apply`")
    transport.create(plan.missing)
    log.info("topics_created", topics=names)


def write_card(path: Path, url: str, bulk: str | None) -> None:
    """Tells other processes of this machine where the worker listens."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(json.dumps({"pid": os.getpid(), "http": url, "bulk": bulk}), encoding="utf-8")
