"""Where settings come from, and how what is wrong with them is told."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from pipeline.settings.tree import ENV_PREFIX, Settings

OTHERS = frozenset({ENV_PREFIX + "TEST_KAFKA"})
"""Variables with our prefix that are no settings: the tests' own."""


class BadConfiguration(Exception):
    """A setting is wrong; the message names it and the process exits with 78."""


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Reads file, environment and flags, the later over the earlier.

    Args:
        flags: Nested settings from the command line; None values are absent.
        config: A TOML file with the same names.

    Raises:
        BadConfiguration: A setting is unknown, wrong or contradictory; the message names each.
    """
    _refuse_unknown_variables()
    file = _read(config)

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic-settings passes it by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- likewise
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=file))

    try:
        return Sourced(**_without_none(flags or {}))
    except ValidationError as error:
        raise BadConfiguration("; ".join(_explain(e) for e in error.errors())) from None


def _refuse_unknown_variables() -> None:
    known = OTHERS | {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name.split("__")[0] not in known:
            raise BadConfiguration(f"{name}: no such setting (penstock config show lists them)")


def _read(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"{config}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{config}: not TOML: {error}") from None


def _without_none(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _without_none(value) if isinstance(value, Mapping) else value for name, value in flags.items() if value is not None}


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    variable = ENV_PREFIX + "__".join(str(part) for part in error["loc"]).upper()
    return f"{path} ({variable}): {error['msg']}"
