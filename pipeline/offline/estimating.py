"""What a job would take, from a sample of its rows that is computed and thrown away."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.offline.answer import Answer
from pipeline.offline.plan import Job
from pipeline.offline.prompts import Ask
from pipeline.offline.scorer import Scorer
from pipeline.offline.tasks import GENERATING
from pipeline.offline.turnstile import Turnstile
from pipeline.offline.windows import ShardReader, Windows, in_order
from schemas.job import ShardPlan

SAMPLED_SHARDS = 8
SAMPLED_ROWS = 32
"""Of each of those shards; all of them together fill a few batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Figures of the whole job, by those of its sample. `cost` is None where no price is known."""

    rows: int
    shards: int
    sampled_rows: int
    prompt_tokens: int
    output_tokens: int
    error_rows: int
    seconds: float
    cost: float | None = None


def estimate(job: Job, scorer: Scorer, *, cost_per_hour: float | None = None, turnstile: Turnstile | None = None) -> Estimate:
    """Computes a sample, spread over the job.

    Args:
        job: The job.
        scorer: What computes.
        cost_per_hour: Price of an hour of it.
        turnstile: The way to a scorer that other processes use as well.

    Raises:
        JobRefused: An input has changed since it was planned.
    """
    asks, answers = _sample(job)
    while turnstile is not None and not turnstile.admits(is_alone=False):
        scorer.abandon()  # what others send there now may end it
    started_s = time.monotonic()
    scorer.submit(list(enumerate(in_order(asks, is_generation=job.spec.task in GENERATING))))
    computed: list[Answer] = []
    while len(computed) < len(asks):
        computed += [scored.answer for scored in scorer.poll()]
    taken_s = time.monotonic() - started_s
    answers += computed
    factor = job.plan.rows / max(len(answers), 1)
    seconds = taken_s * factor
    return Estimate(
        rows=job.plan.rows,
        shards=len(job.plan.shards),
        sampled_rows=len(answers),
        prompt_tokens=round(sum(answer.prompt_tokens for answer in answers) * factor),
        output_tokens=round(sum(answer.output_tokens for answer in answers) * factor),
        error_rows=round(sum(answer.fault is not None for answer in answers) * factor),
        seconds=seconds,
        cost=None if cost_per_hour is None else cost_per_hour * seconds / 3_600,
    )


def _sample(job: Job) -> tuple[list[Ask], list[Answer]]:
    reader = ShardReader(job)
    windows = Windows(job, reader)
    asks: list[Ask] = []
    answers: list[Answer] = []
    try:
        for part in _parts(job):
            for window in windows.read(part, frozenset()):
                asks += window.asks
                answers += window.known
    finally:
        reader.close()
    return asks, answers


def _parts(job: Job) -> Iterator[ShardPlan]:
    """The beginnings of shards that lie evenly in the job."""
    shards = job.plan.shards
    count = min(SAMPLED_SHARDS, len(shards))
    for number in range(count):
        shard = shards[number * len(shards) // count]
        first = shard.slices[0]
        yield shard.model_copy(update={"slices": (first.model_copy(update={"rows": min(first.rows, SAMPLED_ROWS)}),)})
