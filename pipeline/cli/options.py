"""Options that verbs share, and the settings that they make."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate

import typer

from pipeline.settings import BadConfiguration, Settings, TransportKind, load

Json = Annotated[bool, typer.Option("--json", help="Write JSON, one object a line.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line says about the log and the settings. None is left to the environment and the file."""

    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None
    transport: Annotated[TransportKind | None, typer.Option(help="The log: Kafka, or one file on this machine.")] = None
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the embedded log.")] = None
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka's addresses.")] = None
    group_id: Annotated[str | None, typer.Option(help="The workers' consumer group.")] = None
    topic_prefix: Annotated[str | None, typer.Option(help="What the topics' names start with.")] = None

    def flags(self) -> dict[str, Any]:
        """As nested settings."""
        kafka = {"bootstrap_servers": self.bootstrap_servers, "group_id": self.group_id, "topic_prefix": self.topic_prefix}
        return {"transport": self.transport, "data_dir": self.data_dir, "kafka": kafka}

    def settings(self, more: Mapping[str, Any] | None = None) -> Settings:
        """Reads the settings, with these flags and `more` over the environment and the file.

        Raises:
            BadConfiguration: A setting is wrong; the message names it.
        """
        return load({**self.flags(), **(more or {})}, self.config)


_OPTIONS = [inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=field.type) for field in fields(Given)]


def with_settings(verb: Callable[Concatenate[Given, ...], None]) -> Callable[..., None]:
    """Gives a verb the options of `Given` after its own; its first parameter takes them."""
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(verb).parameters.values()][1:]

    @wraps(verb)
    def command(**values: Any) -> None:
        given = Given(**{option.name: values.pop(option.name) for option in _OPTIONS})
        verb(given, **values)

    parameters = [*own, *_OPTIONS]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return command


def read_model(text: str) -> dict[str, str]:
    """Reads what `--model` was given, as a model of the settings.

    Raises:
        BadConfiguration: It is not NAME=SOURCE.
    """
    name, separator, source = text.partition("=")
    if not (name and separator and source):
        raise BadConfiguration(f"--model {text}: write NAME=PATH_OR_HUB_ID, as in tiny=./models/tiny")
    return {"name": name, "source": source}
