"""Where those who send rows to one worker meet, so that rows under suspicion can have it to themselves: jobs and `penstock score --worker` alike."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.offline.flight.address import AUTO, UNIX
from pipeline.offline.jobs.registry import open_registry
from pipeline.offline.turnstile import Turnstile
from pipeline.settings import Settings


def open_turnstile(settings: Settings, worker: str) -> Turnstile:
    """A new way to the worker at an address."""
    registry = open_registry(settings)
    registry.make()
    return Turnstile(registry.root / "rooms", room_of(worker, settings.data_dir))


@contextmanager
def passing(settings: Settings, worker: str | None) -> Iterator[Turnstile | None]:
    """The same for as long as it takes; None where the model runs in this process."""
    if worker is None:
        yield None
        return
    turnstile = open_turnstile(settings, worker)
    try:
        yield turnstile
    finally:
        turnstile.close()


def room_of(worker: str, data_dir: Path) -> str:
    """One name for one worker: a socket in the data folder is that of the worker that `auto` finds there, whatever its process."""
    is_here = worker == AUTO or (worker.startswith(UNIX) and Path(worker.removeprefix(UNIX)).absolute().parent == data_dir.absolute())
    named = AUTO if is_here else worker
    return hashlib.blake2b(f"{named}\0{data_dir.absolute()}".encode(), digest_size=8).hexdigest()
