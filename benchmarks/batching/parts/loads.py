"""As live traffic grows: how many live requests per second get what they want, under each controller?"""

from typing import Any

from benchmarks.batching.policies import adaptive, known
from benchmarks.batching.stage import Stage
from benchmarks.batching.svg import Axis, Series, chart
from benchmarks.report import show
from pipeline.scheduling.pace import Targets

GOAL_STEPS = 1.0
LOADS = (0.1, 0.4, 0.7, 1.0)
"""Output that live requests ask for on average, relative to what the engine gives: at the end they alone are all that it can do."""
SHORT_LOADS = (0.4,)


def run(stage: Stage, model: str, *, rounds: int, is_short: bool) -> dict[str, Any]:
    """Runs all controllers at each load, with the goal that was set at the first."""
    baseline = stage.baseline
    goal = baseline.goal(GOAL_STEPS)
    contenders = [
        adaptive("adaptive", baseline.model(), Targets(ttft_s=goal.ttft_s, tpot_s=goal.tpot_s)),
        *known(goal.ttft_s),
    ]
    rows: list[dict[str, Any]] = []
    for load in SHORT_LOADS if is_short else LOADS:
        per_s = stage.rate(load, baseline.flex)
        outcomes, alone = stage.compare(contenders, rounds=rounds - rounds // 2, per_s=per_s)
        rows += [
            {"what": one.name, "load": load, "asked_per_s": len(outcome.live) / outcome.seconds, **outcome.row(goal, alone.tokens_per_s)}
            for one, outcome in zip(contenders, outcomes, strict=True)
        ]
    show(f"{model}: goal TTFT {1_000 * goal.ttft_s:.0f} ms, TPOT {1_000 * goal.tpot_s:.0f} ms", rows)
    return {"ttft_goal_ms": 1_000 * goal.ttft_s, "tpot_goal_ms": 1_000 * goal.tpot_s, "rows": rows, "plot": _plot(model, rows)}


def _plot(model: str, rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(row["what"] for row in rows))
    x = Axis(label="live load, relative to what the engine can do", low=0.0, high=max(row["load"] for row in rows))
    y = Axis(label="live requests per second within both targets", low=0.0, high=1.1 * max(row["goodput_per_s"] for row in rows))
    series = [Series(name=name, points=[(row["load"], row["goodput_per_s"]) for row in rows if row["what"] == name]) for name in names]
    return chart(f"{model}: goodput", x, y, series)
