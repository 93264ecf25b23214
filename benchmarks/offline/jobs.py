"""Background jobs as they are deployed: Redis, `penstock celery`, a worker whose model is loaded, and `penstock jobs submit`."""

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
from compose.redis_server import RedisFailedError, RedisServer
from pipeline.offline.folder import Folder
from pipeline.settings import DtypeChoice, ModelSettings

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
    """Starts them all, and ends them.

    Raises:
        Failed: There is no Redis here, or it does not start.
    """
    with ExitStack() as stack, (folder / "services.log").open("wb") as log:
        redis = RedisServer(folder / "redis")
        try:
            stack.enter_context(redis)
        except RedisFailedError as error:
            raise Failed(str(error)) from None
        assert redis.pid is not None
        environment = {**environment, "PENSTOCK_TRANSPORT": "embedded", "PENSTOCK_JOBS__BROKER_URL": redis.url}
        environment["PENSTOCK_JOBS__ROOTS"] = '["/"]'  # inputs and results lie where the command line says
        celery = subprocess.Popen([str(PENSTOCK), "celery"], env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(end, celery)
        served = ModelSettings(name="model", source=str(model))
        worker = start_worker(served, Path(environment["PENSTOCK_DATA_DIR"]), {**environment, "PENSTOCK_DTYPE": DtypeChoice.FLOAT32})
        stack.callback(end, worker)
        yield Jobs(model, environment, (redis.pid, celery.pid, worker.pid))


def _wait(condition: Callable[[], bool], longest_s: float, otherwise: str) -> None:
    until_s = time.monotonic() + longest_s
    while not condition():
        if time.monotonic() > until_s:
            raise Failed(f"{otherwise} within {longest_s:.0f} s")
        time.sleep(LOOK_S)
