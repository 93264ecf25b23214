"""Prompts by template: Jinja in its sandbox, where a name without a column, a null or a runaway text is a fault of the row."""

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.offline.refusals import JobRefused
from schemas.errors import InvalidRequest

ROW = "row"
"""Names the whole row, for columns whose names are not Jinja's: `{{ row["my column"] }}`."""
MAX_CHARACTERS = 4 * 1024 * 1024
"""Of a rendered prompt, and of anything that a template multiplies."""


class _Null(Exception):
    """A column without a value was to be shown."""


class _Environment(ImmutableSandboxedEnvironment):
    """Refuses products and powers that take memory out of nothing."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Runs an operation, if its result stays small."""
        sizes = [len(value) if isinstance(value, str | bytes | list | tuple) else value for value in (left, right)]
        if operator == "*" and sizes != [left, right] and sizes[0] * sizes[1] > MAX_CHARACTERS:
            raise SecurityError("a product is too long")
        if operator == "**" and abs(right) > 64:
            raise SecurityError("a power is too large")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text is formatted by filters, not by %")
        return super().call_binop(context, operator, left, right)


class PromptTemplate:
    """One template.

    Raises:
        JobRefused: It is not a Jinja template.
    """

    def __init__(self, text: str):
        environment = _Environment(undefined=StrictUndefined, finalize=_shown, autoescape=False, keep_trailing_newline=True)
        try:
            self.names = frozenset(meta.find_undeclared_variables(environment.parse(text)))
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise JobRefused(f"the template is not sound: line {error.lineno}: {error.message}") from None

    def render(self, row: Mapping[str, Any]) -> str:
        """Fills in a row's values.

        Raises:
            InvalidRequest: It cannot be rendered; the message holds none of the values.
        """
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(**({ROW: row} | dict(row))):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_CHARACTERS:
                    raise InvalidRequest(f"the template makes a prompt of more than {MAX_CHARACTERS} characters", param="prompt")
        except _Null:
            raise InvalidRequest("the template shows a column that is null in this row", param="prompt") from None
        except (TemplateError, ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError) as error:
            raise InvalidRequest(f"the template fails on this row ({type(error).__name__})", param="prompt") from None
        return "".join(pieces)


def _shown(value: Any) -> Any:
    if value is None:
        raise _Null
    return value
