"""The verbs that start processes, brought to the command line by the entry point group `penstock.cli`."""

from shlex import quote
from typing import Annotated, Any, NoReturn

import typer

from pipeline import arrow_memory
from pipeline.cli.console import say
from pipeline.cli.options import Given, read_model, with_settings
from pipeline.openmp import wait_briefly
from pipeline.settings import DeviceChoice, DtypeChoice, Settings, TransportKind

Model = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME=PATH_OR_HUB_ID", help="A model to serve; may be repeated. The one that ships, unless given."),
]
Dtype = Annotated[DtypeChoice | None, typer.Option(help="Precision of weights and KV cache.")]
Device = Annotated[DeviceChoice | None, typer.Option(help="Where the models run.")]
HttpPort = Annotated[int | None, typer.Option(help="Port of health and metrics; 0 is any free one.")]


@with_settings
def worker(
    given: Given,
    model: Model = None,
    dtype: Dtype = None,
    device: Device = None,
    http_port: HttpPort = None,
) -> None:
    """Serve requests from the log until SIGTERM."""
    _serve(given.settings(_flags(model, dtype, device, http_port)))


@with_settings
def up(
    given: Given,
    model: Model = None,
    dtype: Dtype = None,
    device: Device = None,
    http_port: HttpPort = None,
) -> None:
    """Serve on this machine alone, without a broker: a worker on the embedded log, background jobs beside it, until Ctrl-C."""
    flags = _flags(model, dtype, device, http_port)
    settings = given.settings(flags)
    if "transport" not in settings.model_fields_set:
        settings = given.settings({**flags, "transport": TransportKind.EMBEDDED})
    say(_how_to_talk(settings))
    if settings.jobs.broker_url.get_secret_value().startswith("memory://"):
        from workers.companion import Companion  # noqa: PLC0415 -- see _serve

        arrow_memory.bound()  # before there is a child: it reads whole datasets, and is not to be bounded like a worker
        with Companion.of(given):
            _serve(settings)
    _serve(settings)


@with_settings
def celery(
    given: Given,
    queue: Annotated[list[str] | None, typer.Option(help="plan, score or finalise; may be repeated. All of them, unless given.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Tasks at a time.")] = None,
    *,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Work on background jobs until SIGTERM: plan them, drive their shards through a GPU worker, end them. Takes no GPU itself."""
    settings = given.settings({"jobs": {"concurrency": concurrency}})
    from workers.celery_app import run  # noqa: PLC0415 -- see below

    run(settings, queue or [], with_parent=with_parent)


def _serve(settings: Settings) -> NoReturn:
    wait_briefly()
    arrow_memory.bound()
    from workers.stream import main  # noqa: PLC0415 -- the engine takes seconds to import, and --help needs none of it

    raise typer.Exit(main(settings))


def _flags(
    models: list[str] | None,
    dtype: DtypeChoice | None,
    device: DeviceChoice | None,
    http_port: int | None,
) -> dict[str, Any]:
    return {
        "models": [read_model(text) for text in models] if models else None,
        "dtype": dtype,
        "device": device,
        "http": {"port": http_port},
    }


def _how_to_talk(settings: Settings) -> str:
    where = f"--transport {settings.transport.value}"
    if settings.transport is TransportKind.EMBEDDED:
        where += f" --data-dir {quote(str(settings.data_dir.resolve()))}"
    model = settings.served_models[0].name
    return f"Starting. In another terminal:\n  penstock chat --model {model} {where}\n  penstock tail {where}\nCtrl-C stops the worker."
