"""Jobs driven by hand: calls are noted and not sent, and a scripted scorer computes."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from pipeline.offline.jobs.driver import Driver
from pipeline.offline.jobs.errands import Errand, Kind, Patience
from pipeline.offline.jobs.registry import Home, Registry, Submission, job_id_of
from pipeline.offline.turnstile import Turnstile
from tests.cli.conftest import Command, command
from tests.offline.conftest import SHARD_ROWS, Script, dataset, make_spec, out, place

__all__ = ["Command", "command", "dataset", "out", "place"]


@dataclass
class Calls:
    """Takes calls; a test answers them when it likes, or loses them."""

    made: list[Errand] = field(default_factory=list)
    idle: bool = True

    def call(self, errand: Errand) -> None:
        self.made.append(errand)

    def is_idle(self) -> bool:
        return self.idle


@dataclass
class Bench:
    """A driver, and all that it works with. `drive` makes one with other parts."""

    registry: Registry
    calls: Calls
    scorer: Script
    told: list[str]
    drive: Callable[..., Driver]
    driver: Driver
    stopping: list[bool]

    def answer(self, errand: Errand) -> None:
        """Does what a worker does about a message."""
        match errand.kind:
            case Kind.PLAN:
                self.driver.plan(errand.job)
            case Kind.SCORE:
                self.driver.score(errand.job, errand.shard)
            case Kind.FINALISE:
                self.driver.finalise(errand.job)
            case Kind.NOTIFY:
                self.driver.notify(errand.job)

    def answer_all(self) -> None:
        """Until nothing is called out any more."""
        while self.calls.made:
            self.answer(self.calls.made.pop(0))

    def submit(self, dataset: Path, out: Path | str, **changes) -> Home:
        """Submits the job."""
        given = {"spec": make_spec(), "inputs": (str(dataset),), "shard_rows": SHARD_ROWS} | changes
        return self.registry.submit(Submission(id=job_id_of(str(out)), out=str(out), submitted_ms=1, **given))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A driver with a window of two."""
    registry, calls, scorer, told, stopping = Registry(tmp_path / "jobs"), Calls(), Script(), [], []

    @contextmanager
    def doors(_job):
        yield scorer

    drive = partial(
        Driver,
        registry,
        calls,
        doors=doors,
        turnstile=lambda: Turnstile(tmp_path / "rooms", "worker"),
        window=2,
        patience=Patience(10.0, 100.0),
        is_stopping=lambda: bool(stopping),
        tell=lambda home: told.append(home.id),
    )
    return Bench(registry, calls, scorer, told, drive, drive(), stopping)
