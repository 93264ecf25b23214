"""A fleet on paper: each worker a simulation, its step times those that a worker has learned, or those of a data sheet.

Live requests come to the fleet, and to a worker by their partition; the backlog is each worker's own. Nothing is measured here but
the time that the simulation takes: what comes out is as good as the step times that went in (see the part `simulation`, which
holds the simulator against an engine).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.batching.arrivals import Bursts, Lengths, flex
from benchmarks.batching.outcome import Goal, Outcome
from benchmarks.batching.policies import Contender, Size, adaptive, known
from benchmarks.batching.serving import Run, Span
from benchmarks.batching.simulator import Costs, SimulatedServer, shares
from benchmarks.batching.stage import Baseline, Stage
from benchmarks.report import publish
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.step_model import StepModel, Terms

PARTITIONS_PER_WORKER = 4
LOADS = (0.2, 0.4, 0.7, 1.0)
GOAL_STEPS = 1.0
LENGTHS = Lengths(prompt_median=384.0, output_median=128.0, most=2_048)
SIZE = Size(sequences=256, tokens=2_048)
SPAN, SHORT_SPAN = Span(settle_s=2.0, measured_s=15.0, grace_s=30.0), Span(settle_s=1.0, measured_s=4.0, grace_s=15.0)
BURSTS = Bursts(per_s=0.0, period_s=5.0, burst_s=0.5)
BLOCK_TOKENS = 32

PARAMETERS, BYTES, LAYERS, KV_BYTES, ATTENDED = 8.03e9, 2, 32, 2 * 8 * 128 * 2, 4 * 32 * 128
"""Llama 3.1 8B in bfloat16: weights, layers, bytes of a token's keys and values in a layer, operations for a token that another attends to in one."""
BANDWIDTH, OPERATIONS, MEMORY = 3.35e12 * 0.8, 989e12 * 0.5, 80e9 * 0.9
"""An H100 SXM by its data sheet: bytes and operations a second, and bytes, and what part of each a good kernel and a careful operator get."""
HOST_S, CHUNK_S, ROW_S, SCATTER = 1e-3, 5e-5, 1e-5, 0.05
"""What a step costs beside the device's work, a piece of a prompt, and a row; how much times scatter. Estimates."""

H100 = Costs(
    Terms(
        step=PARAMETERS * BYTES / BANDWIDTH + HOST_S,
        prefill_tokens=2 * PARAMETERS / OPERATIONS,
        decodes=ROW_S,
        kv_tokens=LAYERS * KV_BYTES / BANDWIDTH,
        prefill_context=LAYERS * ATTENDED / OPERATIONS,
        chunks=CHUNK_S,
    ),
    scatter=SCATTER,
)
BLOCKS = int((MEMORY - PARAMETERS * BYTES) / (LAYERS * KV_BYTES * BLOCK_TOKENS))


def main(*, workers: int, learned: Path | None, is_short: bool) -> None:
    """Compares the policy that serves with the known controllers, at each load."""
    costs = H100 if learned is None else costs_of(learned)
    span = SHORT_SPAN if is_short else SPAN
    stage = Stage(server=_server(costs, 0), lengths=LENGTHS, span=span, bursts=BURSTS, size=SIZE, baseline_rounds=1)
    baseline = stage.baseline
    goal = baseline.goal(GOAL_STEPS)
    rows = [row for load in LOADS for row in _at(load, stage, baseline, costs, workers, goal)]
    publish(
        "batching-fleet",
        f"{workers} workers on paper, {'an 8B model on an H100 each' if learned is None else learned.name}: "
        f"goal TTFT {1_000 * goal.ttft_s:.0f} ms, TPOT {1_000 * goal.tpot_s:.0f} ms",
        rows,
        {"workers": workers, "costs_s": costs.to_json(), "ttft_goal_ms": 1_000 * goal.ttft_s, "tpot_goal_ms": 1_000 * goal.tpot_s},
    )


def costs_of(path: Path) -> Costs:
    """Reads step times that a worker keeps in its data folder."""
    return Costs.learned(StepModel.from_json(json.loads(path.read_text(encoding="utf-8"))))


def _at(load: float, stage: Stage, baseline: Baseline, costs: Costs, workers: int, goal: Goal) -> list[dict[str, Any]]:
    arrivals = stage.arrivals(workers * stage.rate(load, baseline.flex), seed=1)  # a burst comes to all workers at once
    dealt = shares(arrivals, workers, partitions=workers * PARTITIONS_PER_WORKER, seed=1)
    totals: dict[str, Outcome] = {}
    for worker, own in enumerate(dealt):
        for contender in _contenders(baseline, goal):
            run = Run(_server(costs, worker), contender, stage.span, own, flex(stage.lengths, worker))
            totals.setdefault(contender.name, Outcome()).add(run.go())
    rows = []
    for name, total in totals.items():
        total.seconds /= workers  # side by side, not one after the other
        asked_per_s = len(total.live) / total.seconds
        rows.append({"what": name, "load": load, "asked_per_s": asked_per_s, **total.row(goal, workers * baseline.flex.tokens_per_s)})
    return rows


def _contenders(baseline: Baseline, goal: Goal) -> Sequence[Contender]:
    """Makes them anew for each worker: what one learns is its own."""
    targets = Targets(ttft_s=goal.ttft_s, tpot_s=goal.tpot_s)
    return [adaptive("adaptive", baseline.model(), targets, SIZE), *known(goal.ttft_s, SIZE)]


def _server(costs: Costs, seed: int) -> SimulatedServer:
    return SimulatedServer(costs, blocks=BLOCKS, block_tokens=BLOCK_TOKENS, seed=seed)
