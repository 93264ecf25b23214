"""The engine itself, with the policy of whoever's turn it is."""

import time
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from benchmarks.batching.arrivals import Ask
from benchmarks.batching.policies.base import Contender
from pipeline.engine.base import Job
from pipeline.engine.engine import TransformersEngine
from pipeline.engine.execution import Computed, Execution
from pipeline.engine.loading import load
from pipeline.engine.work import Work
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.sequence import Lane, Sequence
from pipeline.settings import DtypeChoice, EngineSettings, ModelSettings
from schemas.request import SamplingParams

CONTEXT_TOKENS = 512
"""The longest request of the workload."""


class Slowed:
    """An execution that takes its time and then some, in a way that no policy is told of."""

    def __init__(self, execution: Execution):
        self._execution = execution
        self.factor = 1.0

    def run(self, decodes: Seq[Sequence], prefills: Seq[Chunk]) -> Computed:
        """Computes, and sleeps for what is missing."""
        started_s = time.perf_counter()
        computed = self._execution.run(decodes, prefills)
        time.sleep((self.factor - 1.0) * (time.perf_counter() - started_s))
        return computed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._execution, name)


class RealServer:
    """One engine; each contender gets a scheduler of its own over its cache."""

    def __init__(self, name: str, folder: Path, *, most_sequences: int, dtype: str = "float32"):
        settings = EngineSettings(max_sequences=most_sequences, context_tokens=CONTEXT_TOKENS)
        engine = load(ModelSettings(name=name, source=str(folder)), settings, dtype=DtypeChoice(dtype))
        assert isinstance(engine, TransformersEngine)
        engine.warm_up()
        self._engine = engine
        self._pool = engine._scheduler.pool  # noqa: SLF001 -- contenders share the cache and take turns; a worker never changes its policy
        self._slowed = Slowed(engine._execution)  # noqa: SLF001 -- likewise
        engine._execution = self._slowed  # noqa: SLF001
        self._keys: set[int] = set()
        self._origin_s = 0.0

    def begin(self, contender: Contender) -> None:
        """Puts the contender's scheduler in."""
        self._engine._scheduler = contender.scheduler(self._pool)  # noqa: SLF001 -- as above
        self._origin_s = time.monotonic()

    def now_s(self) -> float:
        """Reads the monotonic clock."""
        return time.monotonic() - self._origin_s

    def wait(self, until_s: float) -> None:
        """Sleeps."""
        time.sleep(max(until_s - self.now_s(), 0.0))

    def add(self, key: int, ask: Ask, lane: Lane, arrived_s: float) -> None:
        """Queues a request that is decoded and validated already: both cost every policy the same."""
        sampling = SamplingParams(max_tokens=ask.output_tokens, temperature=0.0, seed=0)
        work = Work(prompt_ids=ask.prompt_ids, sampling=sampling, max_tokens=ask.output_tokens, min_tokens=0, end_ids=frozenset(), is_chat=False)
        job = Job(prompt_tokens=len(ask.prompt_ids), max_output_tokens=ask.output_tokens, choices=1, work=work)
        self._keys.add(key)
        self._engine.add(key, job, lane, arrived_s + self._origin_s)

    def step(self) -> Iterable[tuple[int, int, bool]] | None:
        """One step of the engine."""
        outputs = self._engine.step(time.monotonic())
        for output in outputs:
            if output.error is not None:
                raise output.error
            if output.finish_reason is not None:
                self._keys.discard(output.key)
        if not outputs and not self._engine.stats().batch_tokens:
            return None
        return [(output.key, len(output.token_ids), output.finish_reason is not None) for output in outputs]

    def clear(self) -> None:
        """Cancels what is under way."""
        for key in self._keys:
            self._engine.cancel(key)
        self._keys.clear()

    def closed(self) -> Seq[ClosedBatch]:
        """Explains the last steps."""
        return self._engine.closed_batches()

    def slow_down(self, factor: float) -> None:
        """Lets each step sleep for what is missing."""
        self._slowed.factor = factor

    def close(self) -> None:
        """Frees the memory."""
        self._engine.close()
