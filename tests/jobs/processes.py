"""The processes of background jobs, to start, kill and bring back: Redis, Celery, a GPU worker, and the command."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.redis_server import redis_server
from tests.waiting import wait_for
from tests.worker_process import PENSTOCK, WorkerProcess

WAIT_S = 60.0
DTYPE = ("--dtype", "float32")


class CeleryProcess:
    """`penstock celery`, parent and children."""

    def __init__(self, log_file: Path, environment: dict[str, str]):
        self.log_file = log_file
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Starts it."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen([PENSTOCK, "celery"], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The parent."""
        assert self._process is not None
        return self._process

    def children(self) -> list[int]:
        """Process ids of the pool."""
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]
        return []

    def kill(self) -> None:
        """Ends the parent as the kernel would; its children follow."""
        children = self.children()
        self.process.kill()
        self.process.wait(WAIT_S)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))

    def kill_child(self, number: int = 0) -> bool:
        """Ends one child; tells whether there was one."""
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.children()[number], signal.SIGKILL)
            return True
        return False

    def stop(self) -> int:
        """Asks it to leave; returns the exit code."""
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def log(self) -> str:
        """What it said."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


class Plant:
    """All of them in one folder, with settings that all share."""

    def __init__(self, folder: Path, *, shard_rows: int, **settings: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.redis = redis_server(folder / "redis")
        self.settings = {
            "PENSTOCK_TRANSPORT": "embedded",
            "PENSTOCK_DATA_DIR": str(folder / "data"),
            "PENSTOCK_DTYPE": "float32",
            "PENSTOCK_JOBS__BROKER_URL": self.redis.url,
            "PENSTOCK_JOBS__RECONCILE_S": "1",
            "PENSTOCK_JOBS__ROOTS": json.dumps([str(folder.parent)]),
            "PENSTOCK_OFFLINE__SHARD_ROWS": str(shard_rows),
        } | settings
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        self.environment = inherited | {"HF_HUB_OFFLINE": "1"} | self.settings
        self.celery = CeleryProcess(folder / "celery.log", self.environment)
        self.worker = WorkerProcess(folder / "data", self.settings)

    def penstock(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs the command."""
        command = [str(PENSTOCK), *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def submit(self, *arguments: object) -> str:
        """Submits a job and returns its id."""
        done = self.penstock("jobs", "submit", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def standing(self, job: str) -> dict[str, Any]:
        """How it stands."""
        done = self.penstock("jobs", "show", job, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def logs(self) -> str:
        """The end of what all of them said."""
        return f"celery:\n{self.celery.log()[-4_000:]}\nworker:\n{self.worker.log()[-4_000:] if self.worker.log_file.exists() else ''}"


@contextmanager
def plant(folder: Path, **settings: Any) -> Iterator[Plant]:
    """A plant whose processes are gone when it is."""
    with ExitStack() as stack:
        made = Plant(folder, **settings)
        stack.callback(made.redis.kill)
        made.redis.start()
        try:
            yield made
        finally:
            for process in (made.celery._process, made.worker._process):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait(WAIT_S)


def commits(out: Path) -> int:
    """Shards that are done."""
    return len(list((out / "commits").glob("[0-9]*.json")))


def is_free_of_torch(pid: int) -> bool:
    """Whether a process has not loaded the tensor library."""
    return "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
