"""A real Redis server as a child process, for the tests and the benchmarks."""

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

READY_S = 10.0
PROGRAM = "redis-server"
MISSING = f"{PROGRAM} is not on PATH: run compose/bootstrap.sh redis"


class RedisFailedError(RuntimeError):
    """There is no server here, or it did not start, or not in time."""


class RedisServer:
    """`redis-server` without persistence, on a free loopback port that stays its own: what it knew is gone when it is killed.

    Args:
        directory: Where its log goes.
    """

    def __init__(self, directory: Path):
        self._log_file = directory / "redis.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id while there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Starts it, or starts it again at the same port, and waits until it answers.

        Raises:
            RedisFailedError: It does not.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise RedisFailedError(MISSING)
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._log_file.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._await_answer(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """Ends it as the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        until_s = time.monotonic() + READY_S
        while not self._answers():
            if process.poll() is not None:
                raise RedisFailedError(f"{PROGRAM} ended with {process.returncode}:\n{self._log_file.read_text(errors='replace')[-2_000:]}")
            if time.monotonic() > until_s:
                raise RedisFailedError(f"{PROGRAM} did not answer within {READY_S} s")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
