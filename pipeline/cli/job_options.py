"""The options that say what a job is, the same for all verbs that begin one."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate

import typer
from pydantic import ValidationError

from pipeline.cli.options import Given, read_model
from pipeline.offline.addresses import parse_output
from pipeline.offline.refusals import JobRefused
from pipeline.settings import BadConfiguration, DeviceChoice, DtypeChoice, ModelSettings, Settings
from schemas.job import JobSpec, ModelSpec, OutputFormat, PromptSpec, SamplingSpec, Task


def read_out(out: str | None) -> str | None:
    """Reads where results shall go.

    Raises:
        BadParameter: It is a file, or no sound address.
    """
    if out is not None and Path(out).is_file():
        raise typer.BadParameter(f"{out} is a file: name a folder, or an address in an object store")
    try:
        return None if out is None else parse_output(out)
    except JobRefused as error:
        raise typer.BadParameter(str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What the command line says about a job."""

    inputs: Annotated[list[str], typer.Argument(metavar="IN...", help="Parquet, JSONL, CSV or Arrow: files, folders, globs, or s3:// and the like.")]
    out: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="The job's folder, or s3:// and the like: where its results go.", callback=read_out)
    ]
    task: Annotated[Task, typer.Option(help="What to do with each row.")]
    model: Annotated[
        str | None, typer.Option(metavar="NAME=PATH_OR_HUB_ID", help="The model. That of the settings, or the one that ships, unless given.")
    ] = None
    template: Annotated[str | None, typer.Option(help="Prompt: a Jinja template over the columns, such as '{{ title }}: {{ text }}'.")] = None
    column: Annotated[str | None, typer.Option(help="Prompt: a column, as it is.")] = None
    messages_column: Annotated[str | None, typer.Option(help="Prompt: a column of chat messages, lists or JSON.")] = None
    query_column: Annotated[str | None, typer.Option(help="rerank: the column of queries; 'query' unless given.")] = None
    max_tokens: Annotated[int | None, typer.Option(help="Longest output; 256 unless given.")] = None
    min_tokens: Annotated[int | None, typer.Option(help="Shortest output.")] = None
    temperature: Annotated[float | None, typer.Option(help="0, the default, always takes the likeliest token.")] = None
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest tokens of this probability together.")] = None
    top_k: Annotated[int | None, typer.Option(help="Draw among so many of the likeliest tokens.")] = None
    min_p: Annotated[float | None, typer.Option(help="Draw among tokens at least so likely, relative to the likeliest.")] = None
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 tokens that were there already become unlikely.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of the job; each row's own follows from it.")] = None
    stop: Annotated[list[str], typer.Option(help="Text that ends an output; may be repeated.")] = field(default_factory=list)
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on to --max-tokens whatever the model says.")] = False
    drop_column: Annotated[list[str], typer.Option(help="An input column that the results shall not have; may be repeated.")] = field(
        default_factory=list
    )
    output_format: Annotated[OutputFormat, typer.Option(help="What the results are written as.")] = OutputFormat.PARQUET
    dtype: Annotated[DtypeChoice | None, typer.Option(help="Precision of weights and KV cache.")] = None
    device: Annotated[DeviceChoice | None, typer.Option(help="Where the model runs.")] = None

    def flags(self) -> dict[str, Any]:
        """As nested settings."""
        models = None if self.model is None else [read_model(self.model)]
        return {"models": models, "dtype": self.dtype, "device": self.device}

    def spec(self, model: ModelSpec) -> JobSpec:
        """The job's specification.

        Raises:
            BadParameter: Options contradict each other, or one is out of bounds.
        """
        sources = {"template": self.template, "column": self.column, "messages_column": self.messages_column, "query_column": self.query_column}
        names = ("max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        try:
            return JobSpec(
                task=self.task,
                model=model,
                prompt=PromptSpec(**sources),
                sampling=SamplingSpec(**given, stop=tuple(self.stop), ignore_eos=self.ignore_eos),
                drop_columns=tuple(self.drop_column),
                output_format=self.output_format,
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise typer.BadParameter(f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")) from None


def pick_model(settings: Settings) -> ModelSettings:
    """The one model of the settings, or the one that ships.

    Raises:
        BadConfiguration: There are several.
    """
    if len(settings.models) > 1:
        raise BadConfiguration(f"the settings have {len(settings.models)} models and a job takes one: give --model NAME=PATH_OR_HUB_ID")
    return settings.served_models[0]


def with_job(verb: Callable[Concatenate[Given, JobOptions, ...], None]) -> Callable[Concatenate[Given, ...], None]:
    """Gives a verb the options of `JobOptions` before its own; its second parameter takes them."""
    first, _, *own = inspect.signature(verb).parameters.values()

    @wraps(verb)
    def command(given: Given, **values: Any) -> None:
        options = JobOptions(**{option.name: values.pop(option.name) for option in _OPTIONS})
        verb(given, options, **values)

    command.__signature__ = inspect.Signature([first, *_OPTIONS, *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own)])  # type: ignore[attr-defined]
    return command


def _default(option: Any) -> Any:
    if option.default_factory is not MISSING:
        return option.default_factory()
    return inspect.Parameter.empty if option.default is MISSING else option.default


_OPTIONS = [
    inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=_default(option), annotation=option.type) for option in fields(JobOptions)
]
