"""Kernels compiled beside a worker: one process at a time puts them on disk, a thread takes them from there and proves them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

import structlog

from pipeline.engine.forms import Form

if TYPE_CHECKING:  # the compiler: a part of a second
    from pipeline.engine.compilation import Kernel

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-P", "-m", "pipeline.engine.compiling")
"""`-P`: what lies in the folder where a worker was started is not what it is made of."""

Proof = Callable[["Kernel"], bool]
"""Tells whether a kernel computes what it should."""


class Aside:
    """Makes what is wanted, in that order, until it is closed.

    Args:
        heard: Called on the thread that makes kernels: with each that passed its proof, and with None in place of one that did not.
        command: What compiles a form into the cache; it is called with the form's module and its arguments as JSON.
    """

    def __init__(self, heard: Callable[[Form, "Kernel | None"], None], command: Sequence[str] = COMMAND):
        self._heard = heard
        self._command = command
        self._wanted: SimpleQueue[tuple[Form, Proof] | None] = SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_closing = False
        self._lock = Lock()
        self._thread = Thread(target=self._run, name="kernels", daemon=True)

    def start(self) -> None:
        """Begins to wait for work."""
        self._thread.start()

    def want(self, form: Form, proof: Proof) -> None:
        """Queues a kernel; it is proven before anybody gets it."""
        self._wanted.put((form, proof))

    def close(self) -> None:
        """Ends the process that compiles, if one does, and the thread."""
        with self._lock:
            self._is_closing = True
            if self._child is not None:
                self._child.kill()
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            form, proof = wanted
            started_s = time.monotonic()
            try:
                complaint = self._compile(form) or self._take(form, proof)
            except Exception as error:  # noqa: BLE001 -- whatever is wrong with a kernel, the worker serves without it
                complaint = f"{type(error).__name__}: {error}"
            if self._is_closing:
                return
            if complaint:
                self._heard(form, None)
                log.warning("kernel_not_used", kernel=str(form), detail=f"{complaint}; torch's operations serve in its place, slower")
            else:
                log.info("kernel_in_use", kernel=str(form), seconds=round(time.monotonic() - started_s, 1))

    def _compile(self, form: Form) -> str | None:
        """Has a process put the kernel on disk, and returns what it complains of."""
        with self._lock:
            if self._is_closing:
                return None
            child = self._child = subprocess.Popen(  # noqa: S603 -- ourselves
                [*self._command, form.module, json.dumps(form.arguments)],
                stdin=subprocess.PIPE,  # its end is how the child learns of ours
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                process_group=0,  # Ctrl-C is for the worker, which may drain
            )
        with child:
            complaints = child.stderr.read().decode(errors="replace").splitlines() if child.stderr else []
            code = child.wait()
            self._child = None
        return None if code == 0 else f"compiling it ended with {code}: {(complaints or ['without a word'])[-1][:200]}"

    def _take(self, form: Form, proof: Proof) -> str | None:
        if self._is_closing:
            return None
        kernel = form.define().compiled()
        if not proof(kernel):
            return "it does not compute what torch computes"
        self._heard(form, kernel)
        return None
