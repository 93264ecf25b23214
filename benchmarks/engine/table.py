"""From rounds to rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.engine.limits import Least, Machine
from benchmarks.engine.process import Ran

MIB = 1024 * 1024


@dataclass(slots=True)
class Results:
    """What one contender did with one model: per load its rounds, its start-ups, or why it could not."""

    rounds: dict[str, list[Ran]] = field(default_factory=dict)
    start_s: list[float] = field(default_factory=list)
    reason: str | None = None


def row(name: str, results: Results, load: str, least: Least, machine: Machine) -> dict[str, Any]:
    """One line of a load's table: medians over the rounds; `limit` is the least possible time over the time taken."""
    ran = results.rounds.get(load, [])
    if not ran:
        return {"what": name, "reason": results.reason or "not run"}
    wall_s = median(r.measured.wall_s for r in ran)
    steps_s = [s for r in ran for s in r.measured.step_s]
    return {
        "what": name,
        "tokens_per_s": median(r.measured.tokens_per_s for r in ran),
        "ms_per_step": 1_000 * median(steps_s) if steps_s else None,
        "ttft_p50_ms": 1_000 * median(quantile(r.measured.ttft_s, 0.5) for r in ran),
        "ttft_p95_ms": 1_000 * median(quantile(r.measured.ttft_s, 0.95) for r in ran),
        "tpot_p50_ms": 1_000 * median(quantile(r.measured.tpot_s, 0.5) for r in ran),
        "start_s": median(results.start_s),
        "peak_rss_mib": max(r.peak_rss_bytes for r in ran) / MIB,
        "limit": least.wall_s / wall_s,
        "mbu": least.bytes / wall_s / machine.bytes_per_s,
        "mfu": least.flops / wall_s / machine.flops,
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def ratios(ours: Sequence[Ran], theirs: Sequence[Ran]) -> list[float]:
    """Our tokens per second over theirs, round by round."""
    return [a.measured.tokens_per_s / b.measured.tokens_per_s for a, b in zip(ours, theirs, strict=False)]


def columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same rows, each with every column: a table needs them all."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]
