"""What `penstock doctor` looks at on this machine."""

from collections.abc import Iterator
from importlib.metadata import version
from platform import python_version

from rich.filesize import decimal

from pipeline.cli.finding import Finding, Status
from pipeline.cli.model_card import ModelCard, cards
from pipeline.cli.worker_card import find_workers
from pipeline.settings import Settings

ROOM = 1.5
"""Free memory over weights, at least: a KV cache and activations come on top."""


def software() -> Iterator[Finding]:
    """The versions in use."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("penstock", "torch", "transformers", "kafka-python"))
    yield Finding(check="software", status=Status.OK, detail=f"Python {python_version()}, {libraries}")


def models(settings: Settings) -> Iterator[Finding]:
    """Whether the files of every model that would be served are there."""
    return (_model(card) for card in cards(settings) if card.served)


def machine(settings: Settings) -> Iterator[Finding]:
    """The device, its cores, and its memory."""
    from pipeline.engine import resources  # noqa: PLC0415 -- the tensor library takes seconds to import, and only this check needs it

    device = resources.pick_device(settings.device)
    if not resources.is_available(device):
        yield Finding(check="device", status=Status.FAIL, detail=f"there is no {device.type} here", advice="use --device auto, or another machine")
        return
    yield Finding(check="device", status=Status.OK, detail=f"{device.type}, {resources.cores()} cores")
    free_bytes = resources.free_memory_bytes(device)
    weights_bytes = sum(card.weights_bytes or 0 for card in cards(settings) if card.served)
    detail = f"{decimal(free_bytes)} free, {decimal(weights_bytes)} of weights"
    if weights_bytes * ROOM < free_bytes:
        yield Finding(check="memory", status=Status.OK, detail=detail)
    else:
        yield Finding(check="memory", status=Status.FAIL, detail=detail, advice="serve fewer or smaller models, or use a larger machine")


def workers(settings: Settings) -> Iterator[Finding]:
    """The workers that run here with this data folder."""
    found = find_workers(settings.data_dir)
    for worker in found:
        reason = worker.not_ready()
        if reason is None:
            yield Finding(check="worker", status=Status.OK, detail=f"process {worker.pid} is ready ({worker.url})")
        else:
            yield Finding(check="worker", status=Status.WARN, detail=f"process {worker.pid} ({worker.url}): {reason}", advice="read its log")
    if not found:
        yield Finding(check="worker", status=Status.OK, detail=f"none runs here with {settings.data_dir}")


def _model(card: ModelCard) -> Finding:
    what = f"{card.name} ({card.source})"
    if card.problem is not None:
        advice = "name a folder with config.json and *.safetensors, or a hub id"
        return Finding(check="model", status=Status.FAIL, detail=f"{what}: {card.problem}", advice=advice)
    if not card.is_here:
        advice = "fetch it now (hf download) where workers have no network"
        return Finding(check="model", status=Status.WARN, detail=f"{what}: not here; a worker fetches it from the hub", advice=advice)
    return Finding(check="model", status=Status.OK, detail=f"{what}: {card.architecture}, {decimal(card.weights_bytes or 0)} of weights")
