"""A discrete-event simulation: the same scheduler and policies, and in the engine's place the step times that it would take.

A fleet is as many of them as there are workers: a request belongs to a partition by its key, and a partition to a worker, so they
have nothing in common but the arrivals.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul

from benchmarks.batching.arrivals import Arrival, Ask
from benchmarks.batching.policies.base import Contender
from pipeline.scheduling.batch import Batch
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Lane
from pipeline.scheduling.sequence import Sequence as Sequence_
from pipeline.scheduling.step_model import Load, StepModel, Terms

NORMAL_P95 = 1.96
"""How many sigmas 95 of 100 of a normal distribution stay within."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a step takes, and how much times scatter.

    Attributes:
        terms: Seconds, in the terms of the step model.
        scatter: Sigma of the logarithm of a step's time.
        between: Seconds between two steps, whatever was in them.
    """

    terms: Terms
    scatter: float = 0.05
    between: float = 0.0

    @classmethod
    def learned(cls, model: StepModel, between: float = 0.0) -> "Costs":
        """Takes what a model has learned; its errors stand for the scatter."""
        return cls(model.seconds, scatter=(model.error_p95 or 0.0) / NORMAL_P95, between=between)

    def to_json(self) -> dict[str, float]:
        """As it is written down."""
        return {**self.terms._asdict(), "scatter": self.scatter, "between": self.between}

    def seconds(self, batch: Batch) -> float:
        """Tells what a batch takes, but for the scatter."""
        return float(sum(map(mul, self.terms, Load.of(batch).terms())))


class SimulatedServer:
    """An engine that computes nothing and takes its time all the same."""

    def __init__(self, costs: Costs, *, blocks: int = 4_096, block_tokens: int = 16, seed: int = 0):
        self.costs = costs
        self._pool = BlockPool(blocks, block_tokens)
        self._source = random.Random(seed)  # noqa: S311 -- not a secret
        self._scheduler: Scheduler | None = None
        self._sequences: dict[int, Sequence_] = {}
        self._clock_s = 0.0
        self._slowdown = 1.0
        self._origin_s = 0.0

    def begin(self, contender: Contender) -> None:
        """Gives the contender an empty engine. A policy's clock never goes back, so runs follow each other."""
        self._origin_s = self._clock_s
        self._scheduler = contender.scheduler(self._pool)

    def now_s(self) -> float:
        """Reads the virtual clock."""
        return self._clock_s - self._origin_s

    def wait(self, until_s: float) -> None:
        """Moves it."""
        self._clock_s = max(self._clock_s, until_s + self._origin_s)

    def add(self, key: int, ask: Ask, lane: Lane, arrived_s: float) -> None:
        """Queues a sequence."""
        sequence = Sequence_(
            key=key,
            lane=lane,
            prompt_ids=ask.prompt_ids,
            arrived_s=arrived_s + self._origin_s,
            max_output_tokens=ask.output_tokens,
            salt="",
        )
        self._sequences[key] = sequence
        self.scheduler.add(sequence)

    def step(self) -> Iterable[tuple[int, int, bool]] | None:
        """Plans as the engine does, and lets the time pass that the batch takes."""
        batch = self.scheduler.plan(self._clock_s)
        if not batch.sequences:
            return None
        took_s = self._slowdown * self.costs.seconds(batch) * self._source.lognormvariate(0.0, self.costs.scatter)
        self._clock_s += took_s + self.costs.between
        sampled = [*batch.decodes, *(chunk.sequence for chunk in batch.prefills if chunk.samples)]
        self.scheduler.advance(batch)
        outputs = [self._sample(sequence) for sequence in sampled]
        self.scheduler.close(batch, took_s)
        return outputs

    def clear(self) -> None:
        """Ends all that is under way, and forgets what was computed."""
        self.scheduler.discard(list(self._sequences.values()))
        self._sequences.clear()

    def closed(self) -> Sequence[ClosedBatch]:
        """Explains the last steps."""
        return self.scheduler.history.read()

    def slow_down(self, factor: float) -> None:
        """Stretches the steps to come."""
        self._slowdown = factor

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler of the run."""
        assert self._scheduler is not None, "a run begins first"
        return self._scheduler

    def _sample(self, sequence: Sequence_) -> tuple[int, int, bool]:
        sequence.output_ids.append(len(sequence.output_ids))
        has_ended = len(sequence.output_ids) == sequence.max_output_tokens
        if has_ended:
            self.scheduler.finish(sequence)
            del self._sequences[sequence.key]
        return sequence.key, 1, has_ended


def shares(arrivals: Sequence[Arrival], workers: int, *, partitions: int, seed: int) -> list[list[Arrival]]:
    """Deals arrivals out to workers, by the partition that a request's key falls into."""
    source = random.Random(seed)  # noqa: S311 -- not a secret
    dealt: list[list[Arrival]] = [[] for _ in range(workers)]
    for arrival in arrivals:
        dealt[source.randrange(partitions) % workers].append(arrival)
    return dealt
