"""A door with the worker's side behind it on a thread of its own: the real desk, on the engine that ships for tests."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import flight

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.address import WorkerAddress
from pipeline.offline.flight.desk import Bounds, Desk
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.opening import OpenDoor, open_door
from pipeline.offline.flight.wire import Served, Welcome
from pipeline.settings import Settings, load
from pipeline.telemetry import Metrics
from schemas.job import ModelSpec

DEPTH = 16
SPEC = ModelSpec(name="m", source="here", fingerprint="f", dtype="auto")


class House:
    """A worker without a log."""

    def __init__(self, settings: Settings, engine: FakeEngine, *, instance: str = "one", tokens: int = 100_000, exchanges: int = 4):
        self.settings = settings
        self.engine = engine
        self.metrics = Metrics()
        self.lobby = Lobby(exchanges)
        self.desk = Desk(self.lobby, {engine.info.name: engine}, Bounds(rows=DEPTH, tokens=tokens, attempts=2), self.metrics)
        self.door: OpenDoor | None = open_door(settings, self.lobby)
        self.welcome = Welcome(instance=instance, depth=2 * DEPTH, models=(Served(spec=SPEC, dtype="none"),))
        self.goes_on = threading.Event()
        self.goes_on.set()
        self._wants: list[Callable[[], None]] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._loop, name="loop", daemon=True)
        self.most_running = self.steps = 0

    def start(self) -> "House":
        """Opens the lobby."""
        self.lobby.open(self.welcome)
        self._thread.start()
        return self

    def call(self, verb: Callable[[], None]) -> None:
        """Has the loop's thread do something, and waits until it has."""
        done = threading.Event()
        self._wants.append(lambda: (verb(), done.set()))
        assert done.wait(10)

    def address(self) -> WorkerAddress:
        """Where it is."""
        assert self.door is not None
        bulk = self.settings.bulk
        return WorkerAddress(uri=self.door.uri, data_dir=self.settings.data_dir, token=bulk.token, authorities=bulk.authorities)

    def client(self) -> Any:
        """A caller with nothing but the library."""
        assert self.door is not None
        return flight.FlightClient(self.door.uri.replace("unix://", "grpc+unix://"))

    def rows_in_engine(self) -> int:
        """What the engine holds."""
        return self.engine.stats().running + self.engine.stats().waiting

    def close(self) -> bool:
        """Ends it."""
        self._is_over = True
        self.goes_on.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self.desk.close()
        return self.door is None or self.door.close()

    def _loop(self) -> None:
        while not self._is_over:
            while self._wants:
                self._wants.pop(0)()
            self.desk.pull(time.monotonic())
            self.most_running = max(self.most_running, self.rows_in_engine())
            if self.engine.has_work() and self.goes_on.is_set():
                self.steps += 1
                for output in self.engine.step(time.monotonic()):
                    self.desk.take(output)
            else:
                time.sleep(0.001)
            self.desk.deliver(time.monotonic())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses; `bulk` are settings of the door."""
    made: list[House] = []

    def make(engine: FakeEngine | None = None, bulk: dict[str, Any] | None = None, *, starts: bool = True, **options: Any) -> House:
        settings = load({"data_dir": tmp_path, "bulk": bulk or {}})
        made.append(House(settings, engine or FakeEngine("m", max_sequences=8), **options))
        return made[-1].start() if starts else made[-1]

    yield make
    for one in made:
        one.close()
