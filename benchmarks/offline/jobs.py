"""Background jobs as they are deployed: Redis, `penstock celery`, a worker whose model is loaded, and `penstock jobs submit`."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failed, end
from benchmarks.e2e import start_worker
from benchmarks.offline.ran import Ran
from benchmarks.offline.score import LOOK_S, PENSTOCK, ended, options, results, run, scoring_s
from benchmarks.offline.usage import cpu_s
from pipeline.offline.folder import Folder
from pipeline.settings import DtypeChoice, ModelSettings, Settings

READY_S = 30.0
JOB_S = 900.0


@dataclass(frozen=True, slots=True)
class Jobs:
    """The command, beside the processes that do the work."""

    model: Path
    environment: Mapping[str, str]
    services: tuple[int, ...]

    def run(self, source: Path, out: Path) -> Ran:
        """Submits a job and waits for its manifest."""
        folder = Folder(out)
        before_s, started_s = self._cpu_s(), time.perf_counter()
        command = [str(PENSTOCK), "jobs", "submit", *options("generate", self.model, source, out)]
        submitting = run(command, self.environment, out.with_name(f"{out.name}.log"))
        _wait(folder.manifest_file.exists, JOB_S, "the job did not end")
        wall_s, scoring_cpu_s = time.perf_counter() - started_s, self._cpu_s() - before_s
        return Ran(
            scoring_s=scoring_s(folder),
            scoring_cpu_s=scoring_cpu_s,
            process_s=wall_s,
            process_cpu_s=submitting.cpu_s + scoring_cpu_s,
            results=results(ended(folder), out),
        )

    def _cpu_s(self) -> float:
        return sum(map(cpu_s, self.services))


@contextmanager
def services(model: Path, environment: Mapping[str, str], folder: Path) -> Iterator[Jobs]:
    """Starts them all, and ends them."""
    program = shutil.which("redis-server")
    if program is None:
        raise Failed("redis-server is not on PATH: run compose/bootstrap.sh redis")
    port = _free_port()
    environment = {**environment, "PENSTOCK_TRANSPORT": "embedded", "PENSTOCK_JOBS__BROKER_URL": f"redis://127.0.0.1:{port}/0"}
    environment["PENSTOCK_JOBS__ROOTS"] = '["/"]'  # inputs and results lie where the command line says
    with ExitStack() as stack, (folder / "services.log").open("wb") as log:

        def start(*command: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(end, process)
            return process

        redis = start(program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        _wait(lambda: _listens(port), READY_S, "redis-server did not answer")
        celery = start(str(PENSTOCK), "celery")
        settings = Settings(dtype=DtypeChoice.FLOAT32)
        worker = start_worker(settings, ModelSettings(name="model", source=str(model)), Path(environment["PENSTOCK_DATA_DIR"]), environment)
        stack.callback(end, worker)
        yield Jobs(model, environment, (redis.pid, celery.pid, worker.pid))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _wait(condition: Callable[[], bool], longest_s: float, otherwise: str) -> None:
    until_s = time.monotonic() + longest_s
    while not condition():
        if time.monotonic() > until_s:
            raise Failed(f"{otherwise} within {longest_s:.0f} s")
        time.sleep(LOOK_S)
