"""Which settings nobody beats in both: latency of live requests, and throughput."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a contender reached. `share` is its throughput relative to the backlog alone."""

    name: str
    ttft_p95_ms: float
    share: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both, the fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ttft_p95_ms, -p.share)):
        if not best or point.share > best[-1].share:
            best.append(point)
    return best


def best_within(points: Sequence[Point], ttft_p95_ms: float) -> Point | None:
    """The one with the most throughput of those that are at least as fast; None where none is."""
    return max((p for p in points if p.ttft_p95_ms <= ttft_p95_ms), key=lambda p: p.share, default=None)
