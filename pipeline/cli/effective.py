"""The settings in effect, one by one, each with where it comes from."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.settings import ENV_PREFIX, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """One setting: its dotted path, the environment variable that sets it, and what decided its value."""

    path: str
    variable: str
    value: Any
    source: str
    about: str


def effective(settings: Settings, flags: Mapping[str, Any], config: Path | None) -> Iterator[Effective]:
    """Lists all settings. Values are as JSON has them, with secrets masked.

    Args:
        settings: What was read.
        flags: Nested settings of the command line; None values are absent.
        config: The TOML file that was read.
    """
    file = {} if config is None else tomllib.loads(config.read_text(encoding="utf-8"))
    environment = {name.upper(): name for name in os.environ}
    values = settings.model_dump(mode="json")
    for path, about in _leaves(Settings, ()):
        variable = ENV_PREFIX + "__".join(path).upper()
        yield Effective(
            path=".".join(path),
            variable=variable,
            value=_at(values, path),
            source=_source(path, flags, environment, file, config),
            about=about,
        )


def _leaves(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, field in model.model_fields.items():
        path = (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, path)
        else:
            yield path, field.description or ""


def _source(path: tuple[str, ...], flags: Mapping[str, Any], environment: Mapping[str, str], file: Mapping[str, Any], config: Path | None) -> str:
    if _at(flags, path) is not None:
        return "flag"
    for depth in range(len(path), 0, -1):  # a group may be given whole, as JSON
        variable = ENV_PREFIX + "__".join(path[:depth]).upper()
        if variable in environment:
            return f"environment ({environment[variable]})"
    return f"file ({config})" if _at(file, path) is not None else "default"


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(values, Mapping) or name not in values:
            return None
        values = values[name]
    return values
