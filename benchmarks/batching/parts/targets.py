"""Given nothing but a target: is it met, at what throughput, and does any fixed setting do better?"""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.batching.frontier import Point, best_within, frontier
from benchmarks.batching.outcome import Outcome
from benchmarks.batching.policies import adaptive, fixed_settings
from benchmarks.batching.policies.base import Contender
from benchmarks.batching.stage import Baseline, Stage
from benchmarks.batching.svg import Axis, Series, chart
from benchmarks.report import show
from pipeline.scheduling.pace import Targets

STEPS = {"tight": 0.5, "middle": 1.0, "asked for": 2.0, "loose": 4.0}
"""Targets, as steps of the backlog beyond what 95 of 100 live requests get alone."""


def run(stage: Stage, model: str, *, rounds: int, is_short: bool) -> dict[str, Any]:
    """Runs the adaptive policy with each target, and the fixed settings."""
    baseline = stage.baseline
    targets = {name: baseline.target_s(steps) for name, steps in STEPS.items()}
    ours = [adaptive(f"adaptive, {name}", baseline.model(), Targets(ttft_s=target_s)) for name, target_s in targets.items()]
    others = [adaptive("adaptive, no target", baseline.model(), Targets()), *fixed_settings(is_short=is_short)]
    outcomes, alone = stage.compare([*ours, *others], rounds=rounds, per_s=baseline.per_s)
    rows = [
        _row(one, outcome, alone, target)
        for one, outcome, target in zip([*ours, *others], outcomes, [*targets.values(), *[None] * len(others)], strict=True)
    ]
    points = [Point(name=row["what"], ttft_p95_ms=row["ttft_p95_ms"], share=row["of_flex_alone"]) for row in rows]
    fixed = points[len(ours) + 1 :]
    for row, point in zip(rows, points[: len(ours) + 1], strict=False):
        rival = best_within(fixed, point.ttft_p95_ms)
        row["best_fixed"] = None if rival is None else rival.share
    show(f"{model}: {_head(baseline, alone)}", rows)
    return {
        "live_alone_p95_ms": 1_000 * baseline.live.ttft_s(0.95),
        "flex_step_ms": 1_000 * alone.mean_step_s,
        "flex_tokens_per_s": alone.tokens_per_s,
        "live_per_s": baseline.per_s,
        "rows": rows,
        "frontier": [point.name for point in frontier(fixed)],
        "plot": _plot(model, points[: len(ours) + 1], fixed),
    }


def _row(contender: Contender, outcome: Outcome, alone: Outcome, target_s: float | None) -> dict[str, Any]:
    row = outcome.row(None, alone.tokens_per_s)
    del row["goodput_per_s"]
    return {
        "what": contender.name,
        "target_ms": None if target_s is None else 1_000 * target_s,
        "met": None if target_s is None else "yes" if outcome.ttft_s(0.95) <= target_s else "NO",
        **row,
        "best_fixed": None,
    }


def _head(baseline: Baseline, alone: Outcome) -> str:
    live = baseline.live
    return (
        f"live alone p95 {1_000 * live.ttft_s(0.95):.1f} ms ({len(live.live)} requests), flex alone {alone.tokens_per_s:,.0f} tokens/s "
        f"in steps of {1_000 * alone.mean_step_s:.1f} ms; {baseline.per_s:.1f} live requests/s"
    )


def _plot(model: str, ours: Sequence[Point], fixed: Sequence[Point]) -> str:
    everyone = [p.ttft_p95_ms for p in (*ours, *fixed)]
    x = Axis(label="p95 of the time to the first token of live requests, ms", low=min(everyone) / 1.3, high=max(everyone) * 1.3, is_log=True)
    y = Axis(label="tokens per second, relative to flex alone", low=0.0, high=math.ceil(2.1 * max(p.share for p in (*ours, *fixed))) / 2)
    by_latency = sorted(ours, key=lambda p: p.ttft_p95_ms)
    return chart(
        f"{model}: one policy and its targets, beside fixed settings",
        x,
        y,
        [
            Series(name="adaptive, by its targets", points=[(p.ttft_p95_ms, p.share) for p in by_latency]),
            Series(name="fixed settings", points=[(p.ttft_p95_ms, p.share) for p in fixed], is_line=False),
        ],
    )
