"""What a process tells about itself: health, metrics, logs."""

from enum import StrEnum

from pydantic import Field

from pipeline.settings.group import Group


class HttpSettings(Group):
    """The worker's door for health and metrics."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65_535, description="0: any free port")


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogSettings(Group):
    """Logging: never prompts, never outputs."""

    level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR")
    format: LogFormat = Field(default=LogFormat.AUTO, description="auto: lines for people on a terminal, JSON elsewhere")
