"""The demo's own worker: a process on a log of its own, gone with all it wrote when the demo ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.cli.demo.lanes import MODEL
from pipeline.cli.worker_card import WorkerCard, find_workers
from pipeline.models import TINY

START_S = 180.0
STOP_S = 30.0
LOOK_S = 0.1
TAIL_LINES = 20


class DemoFailed(Exception):
    """The worker did not do its part; the message holds the end of its log."""


class DemoWorker:
    """`penstock worker` with the model that ships, on an embedded log in a temporary folder."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="penstock-demo-")
        self.data_dir = Path(self._folder.name)
        self._log_file = self.data_dir / "worker.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts the process, in a session of its own: Ctrl-C is for the demo, which then stops the worker."""
        options = ["--transport", "embedded", "--data-dir", str(self.data_dir), "--http-port", "0", "--model", f"{MODEL}={TINY}"]
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- our own program
                [sys.executable, "-m", "pipeline.cli", "worker", *options],
                env=os.environ | {"HF_HUB_OFFLINE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def wait_ready(self) -> WorkerCard:
        """Waits until it serves.

        Raises:
            DemoFailed: It ended, or is not ready in time.
        """
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            self.check()
            card = next(iter(find_workers(self.data_dir)), None)
            if card is not None and card.not_ready() is None:
                return card
            time.sleep(LOOK_S)
        raise DemoFailed(f"the worker was not ready within {START_S:g} s\n{self.log_tail()}")

    def check(self) -> None:
        """Makes sure that it still runs.

        Raises:
            DemoFailed: It has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            raise DemoFailed(f"the worker ended with {self._process.returncode}\n{self.log_tail()}")

    def stop(self) -> None:
        """Ends it as an orchestrator would.

        Raises:
            DemoFailed: It did not end in time, or not well.
        """
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"the worker did not stop within {STOP_S:g} s\n{self.log_tail()}") from None
        if code != 0:
            raise DemoFailed(f"the worker ended with {code}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what it logged."""
        return "\n".join(self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leaves nothing behind, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()
