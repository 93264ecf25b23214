"""A real single-node Kafka broker (KRaft) as a child process, for the tests and for `make kafka`.

Only the standard library is used, so that it runs before anything is installed. The jars come from Maven: see pom.xml.
"""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from compose.kafka import java, properties, tls

START_TIMEOUT_S = 90.0  # 3 s on an idle machine; a shared one with recovery to do takes its time
STOP_TIMEOUT_S = 30.0

# The broker takes the place of this shell, and the shell leaves a guard behind that kills the broker when the pipe from
# our process ends without a word, as it does however we die. Linux's parent-death signal would be shorter, but it
# fires as soon as the *thread* that started the broker ends.
_GUARDED = 'exec 3<&0; (read -r _ <&3 || kill -KILL $$) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-'

# ApiVersions v0, which a broker answers to everybody: length, key, version, correlation id, no client id.
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


class BrokerFailedError(RuntimeError):
    """The broker did not start, or not in time; the message ends with the last lines of its log."""


class KafkaBroker:
    """One broker, its own controller, on fixed loopback ports: a restart finds the same address and the same data.

    Constructing it only picks ports; `start` (or `with`) runs it. It dies with the process that started it.

    Args:
        directory: Where configuration, data and log go, reused when it already holds them. When None, a temporary
            directory that `close` removes.
        port: Port of the plain listener; a free one when None.
        security: Adds a TLS listener and a SASL listener, with certificates made on the spot.
        settings: Broker properties that override those of `properties.py`.
    """

    username = properties.USERNAME
    password = properties.PASSWORD

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int | None = None,
        security: bool = False,
        settings: Mapping[str, str] | None = None,
    ):
        self._owns_directory = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="penstock-kafka-")) if directory is None else directory
        self.log_file = self.directory / "broker.log"
        self._ports = properties.pick_ports(port)
        self._security = security
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Address of the listener without encryption or authentication."""
        return f"127.0.0.1:{self._ports.plain}"

    @property
    def tls_bootstrap_servers(self) -> str:
        """Address of the TLS listener, for which `ca_file` vouches."""
        self._require_security()
        return f"127.0.0.1:{self._ports.tls}"

    @property
    def sasl_bootstrap_servers(self) -> str:
        """Address of the SASL listener (PLAIN or SCRAM-SHA-256, no TLS), which knows `username` and `password`."""
        self._require_security()
        return f"127.0.0.1:{self._ports.sasl}"

    @property
    def ca_file(self) -> Path:
        """PEM file of the authority that signed the TLS listener's certificate."""
        self._require_security()
        return self._tls_dir / tls.CA_FILE

    @property
    def pid(self) -> int | None:
        """The broker's process id while it lives."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> None:
        """Starts the broker and returns once it answers.

        Raises:
            BrokerFailedError: Its port is taken, or it exited, or it stayed silent for too long.
        """
        if self.pid is not None:
            return
        self._release_guard()
        if not properties.is_free(self._ports.plain):
            raise BrokerFailedError(f"somebody else listens on {self.bootstrap_servers}: stop that, or choose another port")
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._security and not self.ca_file.exists():
            tls.generate(self._tls_dir)
        config = self._write_config()
        if not (self._data_dir / "meta.properties").exists():
            self._format(config)
        self._process = self._spawn(config)
        self._await_answer(self._process)

    def stop(self) -> None:
        """Shuts the broker down in order, also when it is paused; kills it when that takes too long."""
        if self._process is not None and self.pid is not None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._release_guard()

    def kill(self) -> None:
        """Kills the broker as a crash would: no farewell to clients, no flush."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._release_guard()

    def pause(self) -> None:
        """Freezes the broker: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a paused broker go on."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Starts the broker again on the same ports and data, after stopping it if it still runs."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the broker for good, without ceremony, and removes its data. In a directory of the caller's, the log stays."""
        self.kill()
        shutil.rmtree(self.directory if self._owns_directory else self._data_dir, ignore_errors=True)

    def log_tail(self, lines: int = 40) -> str:
        """Returns the last lines of the broker's log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        """Starts the broker."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes the broker."""
        self.close()

    @property
    def _data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def _tls_dir(self) -> Path:
        return self.directory / "tls"

    def _require_security(self) -> None:
        if not self._security:
            raise ValueError("this broker has only the plain listener: make it with KafkaBroker(security=True)")

    def _write_config(self) -> Path:
        values = properties.plain(self._ports, self._data_dir)
        if self._security:
            values |= properties.secured(self._ports, self._tls_dir)
        config = self.directory / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in (values | self._settings).items()))
        return config

    def _format(self, config: Path) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ["format", "--standalone", f"--cluster-id={cluster_id}", "--config", str(config)]  # `=`: the id may start with a dash
        if self._security:
            arguments += ["--add-scram", properties.SCRAM]
        with self.log_file.open("ab") as log:
            done = subprocess.run([*java.command("kafka.tools.StorageTool"), *arguments], stdout=log, stderr=log, check=False)
        if done.returncode != 0:
            raise BrokerFailedError(f"Kafka's storage tool exited with {done.returncode}; see {self.log_file}\n{self.log_tail()}")

    def _spawn(self, config: Path) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", _GUARDED, "kafka", *java.command("kafka.Kafka"), str(config)]
        with self.log_file.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the broker in order.
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline_s:
                fate = "is silent" if process.poll() is None else f"exited with {process.returncode}"
                self.kill()
                raise BrokerFailedError(f"the Kafka broker on {self.bootstrap_servers} {fate}; see {self.log_file}\n{self.log_tail()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._ports.plain), timeout=1.0) as connection:
                connection.sendall(_API_VERSIONS)
                return len(connection.recv(8)) > 0
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            raise ProcessLookupError("the broker does not run: call start() first")
        os.kill(pid, number)

    def _release_guard(self) -> None:
        """Dismisses the guard of a broker that is gone, and forgets the process."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # the guard was killed from outside
                self._process.stdin.write(b"\n")
                self._process.stdin.close()
        self._process = None
