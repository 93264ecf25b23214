"""How long a step may take, so that live work meets its targets.

A live request that arrives in the middle of a step waits for the rest of it, and then for its own prompt. It arrives anywhere in
the step with equal right, so a step of `T` seconds makes it wait between 0 and `T`. What it needs afterwards, were there no flex
work, is observed: it is more where requests come in bursts and wait for each other. So the longest step is known at which no more
than a few of a hundred would miss the target, and flex work fills that and no less. Before there was live work it is taken to need
nothing.

Much of what a request needs in a burst is the others' doing. Once no live request has come for a while, the next one will find nobody
before it, so only what those needed who came alone is remembered: a burst that is over holds no flex work back.

Who would be late on an engine of his own is nobody's reason to hold back: his wait is not flex work's fault. The more there are of
them, beyond what may be chance among so few as were seen, the fewer others may be late, down to `LEAST_MISSES`; so an overload of
live work costs flex work its place, and not its life.

The target is about records in the log: from the request's own until the first token's. So what it takes to get from there to the engine
and back, as observed, is taken off before anything is planned.

What the calculation misses is trimmed: where the observed p95 breaks a target on account of flex work, what flex work may fill falls
by a third; it recovers in a second. Live work is never trimmed: held back, it would be later still.
"""

import math
from dataclasses import dataclass

from pipeline.scheduling.quantiles import Window
from pipeline.scheduling.transit import Transit

AIM = 0.92
"""The part of a target that is planned for; the rest is for what happens outside of a step."""
MISSES = 0.03
"""Share of live requests that may miss a target by the plan; what is measured is the 0.05 that a p95 leaves."""
LEAST_MISSES = 0.01
"""That share where more than `MISSES` would be late on an engine of their own."""
OBSERVED = 256
"""Live requests whose needs are remembered."""
SILENCE_S = 10.0
"""How long after the last live request what the others of its burst needed still counts."""
JUDGED = 64
"""Live requests that the observed p95 is taken of."""
POINTS = 50
"""Quantiles that stand for what was observed."""
MOST_TRANSIT = 0.5
"""The most of a target that is left to the ways in and out: a log that takes longer makes it missed whatever flex work gives up."""
TRIM, LEAST_TRIM, RECOVERY_S = 0.7, 0.1, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What live requests want; None asks for nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None


class Pace:
    """Turns targets and what was observed into the longest time that a step may take."""

    def __init__(self, targets: Targets, transit: Transit):
        self._targets = targets
        self._transit = transit
        self._needs, self._alone_needs = Window(OBSERVED), Window(OBSERVED)
        self._first_tokens = Window(JUDGED)
        self._streams = Window(JUDGED)
        self._arrival_trim = self._stream_trim = 1.0
        self._now_s = -math.inf
        self._forgets_s = math.inf
        self._arrival_limit_s = self._longest_step_s()

    def pass_time(self, now_s: float) -> None:
        """Recovers from what was trimmed, and forgets a burst that is over."""
        if now_s > self._forgets_s:
            self._forgets_s = math.inf
            self._needs = Window(OBSERVED, self._alone_needs.values())
            self._arrival_limit_s = self._longest_step_s()
        recovered = (now_s - self._now_s) / RECOVERY_S
        self._arrival_trim = min(self._arrival_trim + recovered, 1.0)
        self._stream_trim = min(self._stream_trim + recovered, 1.0)
        self._now_s = now_s

    @property
    def _ttft_s(self) -> float | None:
        """What the target leaves from the time a request can be fetched until the first token is out of the engine."""
        target_s = self._targets.ttft_s
        return None if target_s is None else target_s - min(self._transit.total_s, target_s * MOST_TRANSIT)

    @property
    def stream_limit_s(self) -> float:
        """The longest step while a live stream runs."""
        return math.inf if self._targets.tpot_s is None else self._targets.tpot_s * AIM

    @property
    def flex_limit_s(self) -> float:
        """The longest step that flex work may fill while a live stream runs."""
        return self.stream_limit_s * self._stream_trim

    @property
    def arrival_limit_s(self) -> float:
        """The longest step that flex work may fill, for the sake of live requests that may come."""
        return self._arrival_limit_s * self._arrival_trim

    def slack_s(self, arrived_s: float) -> float:
        """Tells how long a live request that arrived then can still wait for its first token; less than 0 where the target is missed."""
        target_s = self._ttft_s
        return math.inf if target_s is None else arrived_s + target_s * AIM - self._now_s

    @property
    def has_due_times(self) -> bool:
        """Tells whether there is a time by which first tokens are due."""
        return self._targets.ttft_s is not None

    def due_s(self, arrived_s: float) -> float:
        """Tells by when the first token of a live request that arrived then must be out of the engine."""
        target_s = self._ttft_s
        return math.inf if target_s is None else arrived_s + target_s

    def observe_first_token(self, wait_s: float, needed_s: float, *, alone: bool) -> None:
        """Learns how long a live request waited for its first token.

        Args:
            wait_s: From its arrival.
            needed_s: From the time it was seen, without what flex work took.
            alone: No other live request was there when it was seen.
        """
        if (target_s := self._ttft_s) is None:
            return
        self._needs.add(needed_s)
        if alone:
            self._alone_needs.add(needed_s)
        self._forgets_s = self._now_s + SILENCE_S
        self._arrival_limit_s = self._longest_step_s()
        if needed_s <= target_s and _is_broken(self._first_tokens, wait_s / target_s):
            self._arrival_trim = max(self._arrival_trim * TRIM, LEAST_TRIM)

    def observe_stream(self, tpot_s: float, alone_tpot_s: float) -> None:
        """Learns how far apart the tokens of a live stream were, and how far they would have been without flex work."""
        if (target_s := self._targets.tpot_s) is None or alone_tpot_s > target_s:
            return
        if _is_broken(self._streams, tpot_s / target_s):
            self._stream_trim = max(self._stream_trim * TRIM, LEAST_TRIM)

    def _longest_step_s(self) -> float:
        if (target_s := self._ttft_s) is None:
            return math.inf
        seen = len(self._needs)
        needs_s = [self._needs.quantile((i + 0.5) / POINTS) for i in range(POINTS)] if seen else [0.0]
        return longest_step_s(target_s * AIM, needs_s, max(seen, 1))


def _is_broken(seen: Window, ratio: float) -> bool:
    """Notes what a request got, relative to its target; tells whether it breaks it, and the p95 does."""
    seen.add(ratio)
    return ratio > 1.0 and seen.quantile(0.95) > 1.0


def longest_step_s(target_s: float, needs_s: list[float], seen: float = math.inf) -> float:
    """Finds the longest step on account of which `MISSES` of requests with these needs miss a target, if they arrive anywhere in it.

    Where nobody can be on time, that is none. The needs stand for as many requests as were `seen`: a share of lost ones that is no
    larger than its own standard error takes nobody's room.
    """
    slacks_s = sorted([target_s - need_s for need_s in needs_s if need_s < target_s])
    if not slacks_s:
        return 0.0
    lost = 1.0 - len(slacks_s) / len(needs_s)
    certainly_lost = max(lost - math.sqrt(lost * (1.0 - lost) / seen), 0.0)
    most_missed = max(MISSES - certainly_lost, LEAST_MISSES) * len(needs_s)
    # Those with less slack than a step's time T miss by (T - slack) / T each: with k of them, T = sum of their slacks / (k - most_missed).
    total_s, step_s = 0.0, math.inf
    for number, slack_s in enumerate(slacks_s, 1):
        total_s += slack_s
        if number > most_missed:
            step_s = total_s / (number - most_missed)
            if number == len(slacks_s) or step_s <= slacks_s[number]:
                break
    return min(step_s, target_s * 1.1)
