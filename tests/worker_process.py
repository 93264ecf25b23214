"""A real worker process, started as an operator would start it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

PENSTOCK = Path(sys.executable).with_name("penstock")
READY_S = 60.0
STOP_S = 60.0


class WorkerProcess:
    """`penstock worker` on a log, with settings from the environment; its log stays in `directory`."""

    def __init__(self, directory: Path, settings: Mapping[str, str], *arguments: str):
        directory.mkdir(parents=True, exist_ok=True)
        self.data_dir = directory
        self.log_file = directory / "worker.log"
        self.settings = dict(settings)
        self._arguments = arguments
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        self._environment = inherited | {"PENSTOCK_DATA_DIR": str(directory), "PENSTOCK_HTTP__PORT": "0", "HF_HUB_OFFLINE": "1"} | dict(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Starts the process and waits until it is ready."""
        self.spawn()
        self.wait_ready()
        return self

    def spawn(self) -> None:
        """Starts the process."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(PENSTOCK), "worker", *self._arguments], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        """Waits for `/readyz` to answer 200."""
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.log()}")
            if self.status("/readyz") == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"the worker was not ready within {READY_S} s:\n{self.log()}")

    def status(self, page: str) -> int | None:
        """The HTTP status of a page, or None while nobody listens."""
        try:
            return int(urllib.request.urlopen(self.url + page, timeout=5).status)
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError):
            return None

    def metrics(self) -> dict[str, float]:
        """The samples of `/metrics` by name and labels, as they stand there."""
        text = urllib.request.urlopen(self.url + "/metrics", timeout=5).read().decode()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")}

    def peak_mib(self) -> float:
        """The most memory that the process has had."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii"))
        assert found is not None
        return int(found[1]) / 1024

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """Ends the process as the kernel would."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOP_S)

    def log(self) -> str:
        """What the process has logged."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, once spawned."""
        assert self._process is not None, "spawn() comes first"
        return self._process

    @property
    def url(self) -> str:
        """Where it listens."""
        card = self.data_dir / f"worker-{self.process.pid}.json"
        return str(json.loads(card.read_text(encoding="utf-8"))["http"])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()
