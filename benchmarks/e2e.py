"""What does Kafka cost? The same work (a) in process, engine only, and (b) through a real broker and a worker process.

    python -m benchmarks.e2e [--model NAME=PATH] [--rounds 5] [--count 64]

Rounds of (a) and (b) alternate, so that a machine whose speed drifts is fair to both; the ratio is taken round by round.
The broker, the worker and the reader of (b) share the cores that (a) has for itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.child import end, exit_when_terminated
from benchmarks.report import Sample, publish, summarise
from benchmarks.workload import Workload
from compose.kafka.broker import KafkaBroker
from pipeline.engine.base import Engine
from pipeline.engine.loading import load
from pipeline.models import TINY
from pipeline.scheduling.sequence import Lane
from pipeline.settings import ModelSettings, Settings
from pipeline.settings import load as load_settings
from pipeline.transport.base import Acknowledged, Partition, Transport, TransportError
from pipeline.transport.opening import open_transport
from schemas.codec import Limits, decode_event, decode_requests
from schemas.errors import BY_CODE
from schemas.events import Chunk, End, Error
from schemas.record import Encoded, Origin
from schemas.request import Request

ROUND_S = 600.0
READY_S = 120.0
CLOSE_S = 5.0


def run_engine(engine: Engine, lines: list[dict[str, Any]]) -> Sample:
    """(a): every request is there at the start; the loop does nothing but step."""
    origin = Origin("bench", 0, 0)
    requests = [decode_requests(json.dumps(line).encode(), (), origin, 0, Limits())[0] for line in lines]
    started_s = time.monotonic()
    first: dict[int, float] = {}
    for key, request in enumerate(requests):
        if not isinstance(request, Request):
            raise TypeError(f"a line of the workload was refused: {request.error}")
        engine.add(key, engine.prepare(request), Lane.DEFAULT, started_s)
    tokens = 0
    while engine.has_work():
        outputs = engine.step(time.monotonic())
        now_s = time.monotonic()
        for output in outputs:
            tokens += len(output.token_ids)
            first.setdefault(output.key, now_s - started_s)
    return Sample(tokens, time.monotonic() - started_s, tuple(first.values()))


class Requester:
    """(b): every request is published at once; a reader of the reply topic sees the tokens come back. Connected once, as a service would be."""

    def __init__(self, transport: Transport, settings: Settings):
        self._requests = settings.topics.requests
        self._producer = transport.producer()
        chunks = settings.topics.chunks
        self._reader = transport.reader(frozenset(Partition(chunks, number) for number in range(self._producer.partitions(chunks))))

    def run(self, lines: list[dict[str, Any]]) -> Sample:
        """Publishes the lines and reads until each has ended."""
        started_s = time.monotonic()
        for line in lines:
            key = line["custom_id"].encode()
            self._producer.send(self._producer.partition_for(self._requests, key), Encoded(key=key, value=json.dumps(line).encode()), _sent)
        first: dict[bytes | None, float] = {}
        tokens = ended = 0
        while ended < len(lines):
            if time.monotonic() - started_s > ROUND_S:
                raise TimeoutError(f"{ended} of {len(lines)} requests ended within {ROUND_S:.0f} s")
            for record in self._reader.poll(0.05, 1_000):
                event = decode_event(record.key, record.value, record.headers).event
                if isinstance(event, Chunk):
                    tokens += len(event.token_ids)
                    first.setdefault(record.key, time.monotonic() - started_s)
                elif isinstance(event, Error):
                    raise BY_CODE[event.code](event.message)
                ended += isinstance(event, End)
        return Sample(tokens, time.monotonic() - started_s, tuple(first.values()))

    def close(self) -> None:
        """Lets go of both."""
        self._producer.close(CLOSE_S)
        self._reader.close(CLOSE_S)


def _sent(ack: Acknowledged | TransportError) -> None:
    if isinstance(ack, TransportError):
        raise ack


def environment_of(settings: Settings) -> dict[str, str]:
    """This process's own environment, and what a worker has to be told of the settings."""
    return os.environ | {"PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers, "PENSTOCK_DTYPE": settings.dtype.value}


def start_worker(model: ModelSettings, directory: Path, inherited: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts `penstock worker` in an environment, and waits until it is ready."""
    command = [str(Path(sys.executable).with_name("penstock")), "worker", "--model", f"{model.name}={model.source}"]
    environment = {
        **inherited,
        "PENSTOCK_DATA_DIR": str(directory),
        "PENSTOCK_ENGINE__COMPILE": "before",  # the steady state is what is measured
        "PENSTOCK_HTTP__PORT": "0",
        "PENSTOCK_LOG__LEVEL": "WARNING",
    }
    worker = subprocess.Popen(command, env=environment)
    card = directory / f"worker-{worker.pid}.json"
    deadline_s = time.monotonic() + READY_S
    try:
        while time.monotonic() < deadline_s and worker.poll() is None:
            try:
                url = json.loads(card.read_text(encoding="utf-8"))["http"]
                if urllib.request.urlopen(f"{url}/readyz", timeout=5).status == 200:  # noqa: S310 -- our own worker
                    return worker
            except (OSError, ValueError, urllib.error.URLError):
                time.sleep(0.1)
    except BaseException:  # an order to end, too
        end(worker)
        raise
    end(worker)
    raise TimeoutError("the worker was not ready in time")


def main() -> None:
    """Runs the rounds and prints what came of them."""
    exit_when_terminated()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=f"tiny={TINY}", help="NAME=PATH of the model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=64)
    arguments = parser.parse_args()
    name, _, source = arguments.model.partition("=")
    model = ModelSettings(name=name, source=source)
    workload = Workload(count=arguments.count)
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(Path(folder) / "kafka") as broker:
        settings = load_settings({"kafka": {"bootstrap_servers": broker.bootstrap_servers}, "dtype": arguments.dtype})
        worker = start_worker(model, Path(folder) / "worker", environment_of(settings))
        try:
            engine = load(model, settings.engine, device=settings.device, dtype=settings.dtype)
            engine.warm_up()
            transport = open_transport(settings)
            requester = Requester(transport, settings)
            alone, through = [], []
            for number in range(-1, arguments.rounds):  # round -1 warms both up
                drawn = replace(workload, seed=number)  # other prompts each round: none is found in the prefix cache
                a = run_engine(engine, drawn.lines(name, f"a{number}"))
                b = requester.run(drawn.lines(name, f"b{number}"))
                if number >= 0:
                    alone.append(a)
                    through.append(b)
            requester.close()
            transport.close()
        finally:
            end(worker)
    ratios = [b.tokens_per_s / a.tokens_per_s for a, b in zip(alone, through, strict=True)]
    rows = [{"what": "in process, engine only", **summarise(alone)}, {"what": "through Kafka", **summarise(through)}]
    work = f"{arguments.count} requests, {alone[0].tokens:,} output tokens, {name}, {arguments.dtype}"
    publish(
        "e2e",
        f"{work}: Kafka keeps {median(ratios):.1%} (median of {len(ratios)})",
        rows,
        {
            "model": name,
            "dtype": arguments.dtype,
            "requests": arguments.count,
            "output_tokens": alone[0].tokens,
            "ratio": median(ratios),
            "ratios": ratios,
        },
    )


if __name__ == "__main__":
    main()
