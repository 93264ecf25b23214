"""What the simulator predicts for the same arrivals, beside what the engine did: how far can its comparisons be trusted?"""

from collections.abc import Callable
from typing import Any

from benchmarks.batching.outcome import Outcome
from benchmarks.batching.policies import Contender, adaptive, known
from benchmarks.batching.simulator import Costs, SimulatedServer
from benchmarks.batching.stage import Baseline, Stage
from benchmarks.report import show
from pipeline.scheduling.pace import Targets

STEPS = 2.0


def run(stage: Stage, model: str, *, rounds: int, is_short: bool) -> dict[str, Any]:  # noqa: ARG001 -- as every part
    """Runs some policies on the engine, learns its step times from that, and runs the same ones on those."""
    baseline = stage.baseline
    makers = _makers(baseline)
    contenders = [make() for make in makers]
    outcomes, _ = stage.compare(contenders, rounds=rounds, per_s=baseline.per_s)
    costs = learned_costs(contenders[0], outcomes[0])
    twin = Stage(server=SimulatedServer(costs), lengths=stage.lengths, span=stage.span, bursts=stage.bursts)
    simulated, _ = twin.compare([make() for make in makers], rounds=rounds, per_s=baseline.per_s)
    rows = [_row(one.name, real, paper) for one, real, paper in zip(contenders, outcomes, simulated, strict=True)]
    show(f"{model}: measured and simulated", rows)
    return {"costs_s": costs.to_json(), "rows": rows}


def _makers(baseline: Baseline) -> list[Callable[[], Contender]]:
    target_s = baseline.target_s(STEPS)
    return [
        lambda: adaptive("adaptive, no target", baseline.model(), Targets()),
        lambda: adaptive("adaptive", baseline.model(), Targets(ttft_s=target_s)),
        lambda: known(target_s)[1],
        lambda: known(target_s)[-1],
    ]


def learned_costs(contender: Contender, outcome: Outcome) -> Costs:
    """Takes the step times that an adaptive contender has learned in the end, and what passed between its steps."""
    model = contender.policy.model  # type: ignore[attr-defined] -- the adaptive one has it
    between_s = outcome.seconds / len(outcome.step_s) - outcome.mean_step_s
    return Costs.learned(model, between=max(between_s, 0.0))


def _row(name: str, real: Outcome, paper: Outcome) -> dict[str, Any]:
    return {
        "what": name,
        "ttft_p95_ms": 1_000 * real.ttft_s(0.95),
        "simulated_p95_ms": 1_000 * paper.ttft_s(0.95),
        "p95_error": paper.ttft_s(0.95) / real.ttft_s(0.95) - 1.0,
        "tokens_per_s": real.tokens_per_s,
        "simulated_tokens_per_s": paper.tokens_per_s,
        "tokens_error": paper.tokens_per_s / real.tokens_per_s - 1.0,
    }
