"""How long a step may take, so that live work meets its targets.

A live request that arrives in the middle of a step waits for the rest of it, and then for its own prompt. It arrives anywhere in
the step with equal right, so a step of `T` seconds makes it wait between 0 and `T`. What it needs afterwards, were there no flex
work, is observed: it is more where requests come in bursts and wait for each other. So the longest step is known at which no more
than a few of a hundred would miss the target, and flex work fills that and no less. Before there was live work it is taken to need
nothing.

What the calculation misses is trimmed: where the observed p95 breaks a target, the limit falls by a third; it recovers in a second.
"""

import math
from dataclasses import dataclass

from pipeline.scheduling.quantiles import Window

AIM = 0.92
"""The part of a target that is planned for; the rest is for what happens outside of a step."""
MISSES = 0.03
"""Share of live requests that may miss a target by the plan; what is measured is the 0.05 that a p95 leaves."""
OBSERVED = 256
"""Live requests whose needs are remembered."""
JUDGED = 64
"""Live requests that the observed p95 is taken of."""
POINTS = 16
"""Quantiles that stand for what was observed."""
TRIM, LEAST_TRIM, RECOVERY_S = 0.7, 0.1, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What live requests want; None asks for nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None


class Pace:
    """Turns targets and what was observed into the longest time that a step may take."""

    def __init__(self, targets: Targets):
        self._targets = targets
        self._needs = Window(OBSERVED)
        self._first_tokens = Window(JUDGED)
        self._streams = Window(JUDGED)
        self._trim = 1.0
        self._now_s = -math.inf
        self._arrival_limit_s = math.inf if targets.ttft_s is None else longest_step_s(targets.ttft_s * AIM, [0.0])

    def pass_time(self, now_s: float) -> None:
        """Recovers from what was trimmed."""
        if self._trim < 1.0:
            self._trim = min(self._trim + (now_s - self._now_s) / RECOVERY_S, 1.0)
        self._now_s = now_s

    @property
    def stream_limit_s(self) -> float:
        """The longest step while a live stream runs."""
        return math.inf if self._targets.tpot_s is None else self._targets.tpot_s * AIM * self._trim

    @property
    def arrival_limit_s(self) -> float:
        """The longest step that flex work may fill, for the sake of live requests that may come."""
        return self._arrival_limit_s * self._trim

    def slack_s(self, arrived_s: float) -> float:
        """Tells how long a live request that arrived then can still wait for its first token; less than 0 where the target is missed."""
        return math.inf if self._targets.ttft_s is None else arrived_s + self._targets.ttft_s * AIM - self._now_s

    def observe_first_token(self, wait_s: float, needed_s: float) -> None:
        """Learns how long a live request waited for its first token, and how long it would have without flex work from the time it was seen."""
        if (target_s := self._targets.ttft_s) is None:
            return
        self._needs.add(needed_s)
        self._arrival_limit_s = longest_step_s(target_s * AIM, [self._needs.quantile((i + 0.5) / POINTS) for i in range(POINTS)])
        self._judge(self._first_tokens, wait_s / target_s)

    def observe_stream(self, tpot_s: float) -> None:
        """Learns how far apart the tokens of a live stream were."""
        if (target_s := self._targets.tpot_s) is not None:
            self._judge(self._streams, tpot_s / target_s)

    def _judge(self, seen: Window, ratio: float) -> None:
        seen.add(ratio)
        if ratio > 1.0 and seen.quantile(0.95) > 1.0:
            self._trim = max(self._trim * TRIM, LEAST_TRIM)


def longest_step_s(target_s: float, needs_s: list[float]) -> float:
    """Finds the longest step beside which `MISSES` of requests with these needs miss a target, if they arrive anywhere in it."""
    slacks_s = [max(target_s - need_s, 0.0) for need_s in needs_s]
    low_s, high_s = 0.0, target_s * 1.1
    for _ in range(12):
        step_s = (low_s + high_s) / 2
        missed = sum(max(step_s - slack_s, 0.0) for slack_s in slacks_s) / step_s / len(slacks_s)
        low_s, high_s = (step_s, high_s) if missed <= MISSES else (low_s, step_s)
    return low_s
