"""How wrong is what the step model says of a step before it runs, and how much of that is the machine's own unrest?

500 steps of mixed work teach a model that knew nothing; those after them are judged, by the wall time that the policy is charged for.
Beside that stand steps that compute the same again and again: how far they lie from the median of their own series nobody can
foresee; how far the prediction lies from that median is what the model misses, or the machine's speed has moved by since.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, pairwise
from statistics import median
from typing import Any

from benchmarks.batching.arrivals import Ask, Lengths
from benchmarks.batching.outcome import quantile
from benchmarks.batching.policies import SIZE, Contender, adaptive
from benchmarks.batching.serving import Server
from benchmarks.batching.stage import Stage
from benchmarks.host import stolen_ticks
from benchmarks.report import show
from pipeline.scheduling.adaptive import Adaptive
from pipeline.scheduling.batch import Batch
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.sequence import Lane
from pipeline.scheduling.step_model import StepModel

LEARNING_STEPS = 500
JUDGED_STEPS = 500
RESTARTED_STEPS = 100
CROWD_STEPS = 25
"""How long about the same number of requests is under way, before another is drawn."""
REPEATED = ((1, 0), (4, 0), (16, 0), (64, 0), (0, 64), (16, 64), (16, 256))
"""Streams and prompt tokens of the steps that are repeated."""
SERIES_STEPS = 20
"""Steps of one series: short enough that streams grow by little, and the machine drifts by little."""
UNCOUNTED_STEPS = 4
"""The first ones of a series, in which its streams begin."""
GOAL = 0.15
"""What 95 of 100 errors are to stay below."""


@dataclass(slots=True)
class Crowd:
    """Mixed work: between one request and as many as there are rows, those who end are replaced, and how many they are changes."""

    server: Server
    lengths: Lengths
    seed: int
    robbed: set[int] = field(default_factory=set)
    """Numbers of the steps during which the host took time from the processors."""
    _under_way: set[int] = field(default_factory=set)
    _keys: int = 0

    def steps(self) -> Iterator[ClosedBatch]:
        """Runs steps without end, and shows what was in each."""
        source = random.Random(f"crowd {self.seed}")  # noqa: S311 -- a workload, not a secret
        while True:
            size = round(SIZE.sequences ** source.random())
            for _ in range(CROWD_STEPS):
                yield self._step(size, source)

    def _step(self, size: int, source: random.Random) -> ClosedBatch:
        while len(self._under_way) < size:
            self._keys += 1
            self._under_way.add(self._keys)
            self.server.add(self._keys, self.lengths.draw(source), source.choice((Lane.DEFAULT, Lane.FLEX)), self.server.now_s())
        stolen = stolen_ticks()
        for key, _, has_ended in self.server.step() or ():
            if has_ended:
                self._under_way.discard(key)
        closed = self.server.closed()[-1]
        if stolen_ticks() > stolen:
            self.robbed.add(closed.number)
        return closed


@dataclass(frozen=True, slots=True)
class Mixed:
    """Steps of a crowd, and the numbers of those during which the host took time."""

    closed: Sequence[ClosedBatch]
    robbed: set[int]

    def after(self, steps: int) -> "Mixed":
        """Leaves out the first."""
        return Mixed(self.closed[steps:], self.robbed)


class Frozen(Adaptive):
    """Predicts and learns no more: a series would teach it the one step that it consists of."""

    def observe(self, batch: Batch, started_s: float, measured_s: float, *, is_whole: bool) -> None:
        """Leaves the model as it is."""


def run(stage: Stage, model: str, *, rounds: int, is_short: bool) -> dict[str, Any]:  # noqa: ARG001 -- as every part
    """Teaches and judges a new model in each round, and repeats the same steps."""
    runs: list[Mixed] = []
    restarted: list[ClosedBatch] = []
    series: dict[tuple[int, int], list[list[ClosedBatch]]] = {shape: [] for shape in REPEATED}
    for seed in range(1, rounds + 1):
        learned = StepModel()
        runs.append(_mixed(stage, learned, LEARNING_STEPS + JUDGED_STEPS, seed=seed).after(LEARNING_STEPS))
        restarted += _mixed(stage, _again(learned), RESTARTED_STEPS, seed=-seed).closed
        for shape in REPEATED:
            series[shape].append(_repeated(stage, _again(learned), *shape, seed=seed))
    judged = [batch for one in runs for batch in one.closed]
    own = [batch for one in runs for batch in one.closed if batch.number not in one.robbed]
    parts = {"of these, nothing taken by the host": own} | _regimes(judged) | _changes(judged)
    rows = [_row("all steps", judged), *(_row(name, part) for name, part in parts.items() if part)]
    rows += [_row(f"round {number}", one.closed) for number, one in enumerate(runs, 1)]
    rows.append(_row(f"the first {RESTARTED_STEPS} after a restart", restarted))
    repeated = [_floor_row("all of these", [one for many in series.values() for one in many])]
    repeated += [_floor_row(f"{streams} streams, {tokens} tokens of a prompt", many) for (streams, tokens), many in series.items()]
    show(f"{model}: steps {LEARNING_STEPS + 1} to {LEARNING_STEPS + JUDGED_STEPS}, predicted before they ran", rows)
    show(f"{model}: the same step again and again, {SERIES_STEPS} to a series", repeated)
    return {"rows": rows, "repeated": repeated, "goal": GOAL, "met": rows[0]["error_p95"] < GOAL}


def _again(learned: StepModel) -> StepModel:
    """What a worker finds when it starts again."""
    return StepModel.from_json(learned.to_json())


def _mixed(stage: Stage, learned: StepModel, steps: int, *, seed: int) -> Mixed:
    stage.server.begin(adaptive("mixed work", learned, Targets()))
    crowd = Crowd(stage.server, stage.lengths, seed)
    closed = list(islice(crowd.steps(), steps))
    stage.server.clear()
    return Mixed(closed, crowd.robbed)


def _repeated(stage: Stage, learned: StepModel, streams: int, prompt_tokens: int, *, seed: int) -> list[ClosedBatch]:
    """Runs a series. Prompts are random, so that none is found in the prefix cache."""
    server, source, keys = stage.server, random.Random(f"repeated {seed}"), count()  # noqa: S311 -- likewise
    server.begin(Contender(name="repeated", policy=Frozen(learned)))
    for _ in range(streams):
        server.add(next(keys), _ask(source, 12, UNCOUNTED_STEPS + SERIES_STEPS + 1), Lane.DEFAULT, server.now_s())
    for _ in range(UNCOUNTED_STEPS + SERIES_STEPS):
        if prompt_tokens:
            server.add(next(keys), _ask(source, prompt_tokens, 1), Lane.DEFAULT, server.now_s())
        server.step()
    closed = server.closed()[-SERIES_STEPS:]
    server.clear()
    return list(closed)


def _ask(source: random.Random, prompt_tokens: int, output_tokens: int) -> Ask:
    return Ask(tuple(source.choices(range(10, Lengths().vocabulary), k=prompt_tokens)), output_tokens)


def _regimes(batches: Sequence[ClosedBatch]) -> dict[str, list[ClosedBatch]]:
    regimes: dict[str, list[ClosedBatch]] = {
        "1 to 4 streams": [],
        "5 to 16 streams": [],
        "more streams": [],
        "streams and prompts": [],
        "prompts alone": [],
    }
    few, some, many, mixed, prompts = regimes.values()
    for batch in batches:
        decodes = sum(share.decodes for share in batch.lanes.values())
        if decodes < batch.sequences:
            (mixed if decodes else prompts).append(batch)
        else:
            (few if decodes <= 4 else some if decodes <= 16 else many).append(batch)
    return regimes


def _changes(batches: Sequence[ClosedBatch]) -> dict[str, list[ClosedBatch]]:
    """Steps of streams alone after such a step: products of another number of rows may have to be prepared first, which no term tells."""
    same: list[ClosedBatch] = []
    other: list[ClosedBatch] = []
    for before, batch in pairwise(batches):
        has_prompts = any(share.prefill_chunks for one in (before, batch) for share in one.lanes.values())
        if batch.number == before.number + 1 and not has_prompts:
            (same if batch.tokens == before.tokens else other).append(batch)
    return {"as many streams as before": same, "another number of streams": other}


def _row(what: str, batches: Sequence[ClosedBatch]) -> dict[str, Any]:
    """Errors are shares of the measured time; `bias` is that of the median step, positive where more was predicted than it took."""
    errors = [batch.predicted_s / batch.measured_s - 1.0 for batch in batches if batch.predicted_s is not None]
    distances = [abs(error) for error in errors]
    return {
        "what": what,
        "steps": len(errors),
        "step_ms": 1_000 * median(batch.measured_s for batch in batches),
        "error_p50": quantile(distances, 0.5),
        "error_p95": quantile(distances, 0.95),
        "bias": median(errors),
    }


def _floor_row(what: str, series: Sequence[Sequence[ClosedBatch]]) -> dict[str, Any]:
    """Spreads are shares of the median of a series; `missed` is by how much of it that median was predicted wrong, in the median series."""
    spreads, missed = [], []
    for batches in series:
        middle_s = median(batch.measured_s for batch in batches)
        spreads += [abs(batch.measured_s / middle_s - 1.0) for batch in batches]
        missed.append(abs(median(batch.predicted_s or 0.0 for batch in batches) / middle_s - 1.0))
    return {
        "what": what,
        "steps": len(spreads),
        "spread_p50": quantile(spreads, 0.5),
        "spread_p95": quantile(spreads, 0.95),
        "missed": median(missed),
    }
