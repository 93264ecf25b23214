"""Ours: the engine alone, as the worker's loop steps it."""

import json
import time
from collections.abc import Iterable, Sequence

from benchmarks.engine.contenders.base import Setup, drive
from benchmarks.engine.loads import Ask
from benchmarks.engine.measured import Measured
from pipeline.engine.base import Engine
from pipeline.engine.loading import load
from pipeline.scheduling.sequence import Lane
from pipeline.settings import DtypeChoice, EngineSettings, ModelSettings
from schemas.codec import Limits, decode_requests
from schemas.record import Origin
from schemas.request import Request

NAME = "model"


def start(setup: Setup) -> "Penstock":
    """Loads and warms with the defaults of a worker."""
    settings = EngineSettings(max_sequences=setup.max_sequences, context_tokens=setup.max_tokens_each)
    engine = load(ModelSettings(name=NAME, source=setup.folder), settings, dtype=DtypeChoice(setup.dtype))
    engine.warm_up()
    return Penstock(engine)


class Penstock:
    """Requests go through the wire's own decoding, validation and preparation."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def run(self, asks: Sequence[Ask], concurrent: int) -> Measured:
        """Steps until all is answered."""
        return drive(self, asks, concurrent)

    def add(self, index: int, ask: Ask) -> None:
        """Decodes and prepares as intake does."""
        body = {"model": NAME, "prompt": ask.prompt_ids, "max_tokens": ask.max_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        line = json.dumps({"custom_id": str(index), "method": "POST", "url": "/v1/completions", "body": body})
        (request,) = decode_requests(line.encode(), (), Origin("bench", 0, index), 0, Limits())
        if not isinstance(request, Request):
            raise TypeError(f"a request of the workload was refused: {request.error}")
        self._engine.add(index, self._engine.prepare(request), Lane.DEFAULT, time.monotonic())

    def step(self) -> Iterable[tuple[int, int, bool]]:
        """One step of the engine."""
        outputs = self._engine.step(time.monotonic())
        for output in outputs:
            if output.error is not None:
                raise output.error
        return [(output.key, len(output.token_ids), output.finish_reason is not None) for output in outputs]
