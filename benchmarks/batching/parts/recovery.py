"""After a burst, and when the machine becomes slower under way: how soon is all as it was?"""

import random
from collections.abc import Sequence
from typing import Any

from benchmarks.batching.arrivals import Arrival, Bursts, flex
from benchmarks.batching.outcome import Outcome, quantile
from benchmarks.batching.policies import adaptive
from benchmarks.batching.serving import Run, Span
from benchmarks.batching.stage import Baseline, Stage
from benchmarks.report import show
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.pace import Targets

STEPS = 2.0
BURST_S = 1.0
BURST_AT_S = 4.0
SPAN = Span(settle_s=1.0, measured_s=8.0, grace_s=3.0)
SLOWER = 2.0
RECOVERED_S = 1.0


def run(stage: Stage, model: str, *, rounds: int, is_short: bool) -> dict[str, Any]:  # noqa: ARG001 -- as every part
    """Runs both."""
    baseline = stage.baseline
    after_burst = _burst(stage, baseline, rounds)
    show(f"{model}: a second of ten times as many, target {1_000 * baseline.target_s(STEPS):.0f} ms", after_burst)
    slowdown = _slowdown(stage, baseline)
    show(f"{model}: steps that take {SLOWER:g} times as long, target {SLOWER * 1_000 * baseline.target_s(STEPS):.0f} ms", slowdown)
    return {"burst": after_burst, "slowdown": slowdown}


def _burst(stage: Stage, baseline: Baseline, rounds: int) -> list[dict[str, Any]]:
    contender = adaptive("adaptive", baseline.model(), Targets(ttft_s=baseline.target_s(STEPS)))
    outcome = Outcome()
    for seed in range(1, rounds + 1):
        outcome.add(Run(stage.server, contender, SPAN, _arrivals(stage, baseline.per_s, seed), flex(stage.lengths, seed)).go())
    end_s = BURST_AT_S + BURST_S
    phases = {
        "before the burst": (0.0, BURST_AT_S),
        "in it": (BURST_AT_S, end_s),
        "in the first second after it": (end_s, end_s + RECOVERED_S),
        "later": (end_s + RECOVERED_S, SPAN.end_s),
    }
    return [{"what": name, **_phase(outcome, *phase, target_s=baseline.target_s(STEPS))} for name, phase in phases.items()]


def _arrivals(stage: Stage, per_s: float, seed: int) -> list[Arrival]:
    source = random.Random(f"burst {seed}")  # noqa: S311 -- a workload, not a secret
    bursts = Bursts(per_s=per_s, period_s=SPAN.end_s, burst_s=BURST_S)
    return [Arrival(at_s, stage.lengths.draw(source)) for at_s in bursts.times(SPAN.end_s, [BURST_AT_S], source)]


def _phase(outcome: Outcome, begin_s: float, end_s: float, *, target_s: float) -> dict[str, Any]:
    waits_s = [w.ttft_s for w in outcome.live if begin_s <= w.due_s < end_s]
    within = sum(wait_s <= target_s for wait_s in waits_s)
    return {
        "live": len(waits_s),
        "ttft_p50_ms": 1_000 * quantile(waits_s, 0.5),
        "ttft_p95_ms": 1_000 * quantile(waits_s, 0.95),
        "within_target": within / len(waits_s) if waits_s else None,
    }


def _slowdown(stage: Stage, baseline: Baseline) -> list[dict[str, Any]]:
    target_s = SLOWER * baseline.target_s(STEPS)
    contender = adaptive("adaptive", baseline.model(), Targets(ttft_s=target_s))
    rows = []
    for what, factor in (("at full speed", 1.0), ("slowed down", SLOWER), ("at full speed again", 1.0)):
        stage.server.slow_down(factor)
        outcome = Run(stage.server, contender, SPAN, _arrivals(stage, baseline.per_s / SLOWER, 1), flex(stage.lengths, 1)).go()
        closed = stage.server.closed()
        began_s = closed[0].started_s
        rows.append(
            {
                "what": what,
                "step_ms": 1_000 * outcome.mean_step_s,
                "ttft_p95_ms": 1_000 * outcome.ttft_s(0.95),
                "flex_tokens_per_s": outcome.flex_tokens_per_s,
                "error_first_s": _error([b for b in closed if b.started_s < began_s + RECOVERED_S]),
                "error_later": _error([b for b in closed if b.started_s >= began_s + RECOVERED_S]),
            }
        )
    stage.server.slow_down(1.0)
    return rows


def _error(batches: Sequence[ClosedBatch]) -> float:
    """The median share by which predictions were wrong."""
    return quantile([abs(1.0 - b.predicted_s / b.measured_s) for b in batches if b.predicted_s], 0.5)
