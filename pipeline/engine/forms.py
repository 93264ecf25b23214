"""What a compiled kernel is called, so that other modules and another process can ask for it without a compiler at hand."""

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the compiler: a part of a second
    from pipeline.engine.compilation import Definition


class CannotKeep(Exception):
    """No kernel can be kept on disk; the message says where that was tried, and why not."""


class Form(NamedTuple):
    """One kernel.

    Attributes:
        module: It has a function `define` that returns a `Definition`.
        arguments: What that is called with.
    """

    module: str
    arguments: tuple[int, ...]

    def define(self) -> "Definition":
        """What there is to compile."""
        definition: Definition = import_module(self.module).define(*self.arguments)
        return definition

    def __str__(self) -> str:
        """For people."""
        return " ".join([self.module.rpartition(".")[2], *(str(int(argument)) for argument in self.arguments)])
