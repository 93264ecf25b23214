"""Which of those that wait to give up so that the fewest are late. Pure.

Moore's algorithm (Moore, An n Job, One Machine Sequencing Algorithm for Minimizing the Number of Late Jobs, 1968, as Hodgson put
it): take them by the time at which they are due, and whenever one of them would be late, give up whoever of those taken so far
needs longest. On a machine that serves one after the other no choice leaves fewer late. This one serves in steps, which cost
something themselves and whose members end together, so nobody is put into a step in which another would be late for it; of
steps it is no longer exact.
"""

import math
from bisect import bisect_left
from heapq import heappop, heappush
from itertools import accumulate
from typing import NamedTuple

from pipeline.scheduling.sequence import Sequence


class Candidate(NamedTuple):
    """Who wants to be done by `due_s`, and what its prompt adds to a step, in seconds."""

    due_s: float
    needs_s: float
    sequence: Sequence


class Share(NamedTuple):
    """The candidates of one tenant, by due time, and its weight among the others."""

    weight: float
    candidates: list[Candidate]


def late(shares: list[Share], begins_s: float, step_s: float) -> tuple[list[Sequence], float]:
    """Names those to give up so that the fewest are late, and tells when the others will be done.

    Args:
        shares: Those who wait side by side.
        begins_s: When the first step begins that is theirs.
        step_s: What a step takes in which nobody's prompt is.
    """
    sharing = _Sharing(shares)
    given_up: list[Sequence] = []
    ends_s = begins_s
    for share in shares:
        others, needed_s = _late(share, sharing, begins_s, step_s)
        given_up += others
        ends_s += needed_s
    return given_up, ends_s


def _late(share: Share, sharing: "_Sharing", begins_s: float, step_s: float) -> tuple[list[Sequence], float]:
    taken: list[tuple[float, int, Sequence]] = []
    given_up: list[Sequence] = []
    needed_s, step_due_s = 0.0, -math.inf
    for number, (due_s, needs_s, sequence) in enumerate(share.candidates):
        needed_s += needs_s
        if begins_s + sharing.elapsed_s(needed_s, share.weight) > step_due_s:
            begins_s, step_due_s = begins_s + step_s, math.inf
        step_due_s = min(step_due_s, due_s)
        heappush(taken, (-needs_s, number, sequence))
        if begins_s + sharing.elapsed_s(needed_s, share.weight) > due_s:
            longest_s, _, longest = heappop(taken)
            needed_s += longest_s
            given_up.append(longest)
    return given_up, needed_s


class _Sharing:
    """Tenants who are served side by side by their weights, until each has had what it wants."""

    def __init__(self, shares: list[Share]):
        wants = sorted((sum(c.needs_s for c in share.candidates) / share.weight, share.weight) for share in shares)
        self._levels = [level for level, _ in wants]
        """What each wants, relative to its weight."""
        self._had_s = [0.0, *accumulate(level * weight for level, weight in wants)]
        self._weights = [0.0, *accumulate(weight for _, weight in wants)]

    def elapsed_s(self, needed_s: float, weight: float) -> float:
        """Tells how long it takes until one of this weight has had so much: the others have as much by their weights, and no more than they want."""
        level = needed_s / weight
        content = bisect_left(self._levels, level)
        return self._had_s[content] + level * (self._weights[-1] - self._weights[content])
