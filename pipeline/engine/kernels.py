"""The kernels of this process: taken from disk, compiled where they are first used, or compiled aside while torch's operations serve."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from pipeline.engine.aside import COMMAND, Aside, Proof
from pipeline.engine.forms import CannotKeep, Form
from pipeline.settings import KernelCompiling

if TYPE_CHECKING:  # the compiler: a part of a second
    from pipeline.engine.compilation import Kernel

log = structlog.get_logger(__name__)


class Kernels:
    """Finds kernels by their form; each is sought once.

    Args:
        command: See `Aside`.
    """

    def __init__(self, command: Sequence[str] = COMMAND):
        self._command = command
        self._known: dict[Form, Kernel | None] = {}
        self._awaited: set[Form] = set()
        self._aside: Aside | None = None
        self._has_warned = False

    def find(self, form: Form, proof: Proof) -> "Kernel | None":
        """The kernel; or None as long as it is compiled aside, and for good where that failed.

        Args:
            form: Which one.
            proof: Asked before one that was compiled aside is used.
        """
        if form not in self._known:
            self._seek(form, proof)
        return self._known[form]

    def expects(self, form: Form, proof: Proof) -> bool:
        """Tells whether there is such a kernel or it is being compiled: whether to get ready for it."""
        return self.find(form, proof) is not None or form in self._awaited

    @contextmanager
    def compiling(self, choice: KernelCompiling) -> Generator[None]:
        """Compiles in the way that the setting says, until the context ends; nothing is left running then."""
        if choice is KernelCompiling.BEFORE:
            yield
            return
        self._aside = Aside(self._hear, self._command)
        self._aside.start()
        try:
            yield
        finally:
            self._aside.close()
            self._aside = None

    def _hear(self, form: Form, kernel: "Kernel | None") -> None:
        self._known[form] = kernel
        self._awaited.discard(form)

    def _seek(self, form: Form, proof: Proof) -> None:
        definition = form.define()
        try:
            is_kept = definition.is_kept()
        except CannotKeep as error:
            self._warn(error)
            self._known[form] = definition.compiled() if self._aside is None else None
            return
        if is_kept or self._aside is None:
            self._known[form] = definition.compiled()
        else:
            self._known[form] = None  # before the thread may know better
            self._awaited.add(form)
            self._aside.want(form, proof)

    def _warn(self, error: CannotKeep) -> None:
        if not self._has_warned:
            meanwhile = "each process compiles them anew" if self._aside is None else "torch's operations serve in their place, slower"
            log.warning("kernels_not_kept", detail=f"{error}: {meanwhile}; set XDG_CACHE_HOME to a folder that can be written")
        self._has_warned = True


KERNELS = Kernels()
"""Of the process, as the threads are that they run on."""


class Pair:
    """One kernel in two ways, for one thread and for several: each is looked for until it is there, and from then on at hand.

    Args:
        form: Names it, told whether it is parallel.
        proof: See `Kernels.find`.
    """

    __slots__ = ("_forms", "_found", "_proof")

    def __init__(self, form: Callable[..., Form], proof: Proof):
        self._forms = form(is_parallel=False), form(is_parallel=True)
        self._proof = proof
        self._found: list[Kernel | None] = [None, None]

    def find(self, *, is_parallel: bool) -> "Kernel | None":
        """See `Kernels.find`."""
        if (kernel := self._found[is_parallel]) is None:
            kernel = self._found[is_parallel] = KERNELS.find(self._forms[is_parallel], self._proof)
        return kernel

    def is_expected(self, *, is_parallel: bool) -> bool:
        """See `Kernels.expects`."""
        return KERNELS.expects(self._forms[is_parallel], self._proof)
