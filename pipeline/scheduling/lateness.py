"""Which of those that wait to give up so that the fewest are late. Pure.

Moore's algorithm (Moore, An n Job, One Machine Sequencing Algorithm for Minimizing the Number of Late Jobs, 1968, as Hodgson put
it): take them by the time at which they are due, and whenever one of them would be late, give up whoever of those taken so far
needs longest. On a machine that serves one after the other no choice leaves fewer late. This one serves in steps, which cost
something themselves and whose members end together, so nobody is put into a step in which another would be late for it; of
steps it is no longer exact.
"""

import math
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import NamedTuple

from pipeline.scheduling.sequence import Sequence


class Candidate(NamedTuple):
    """Who wants to be done by `due_s`, and what its prompt adds to a step, in seconds."""

    due_s: float
    needs_s: float
    sequence: Sequence


class Share(NamedTuple):
    """The candidates of one tenant, by due time, and what part of each step is theirs."""

    part: float
    candidates: Iterable[Candidate]


def late(shares: Iterable[Share], begins_s: float, step_s: float) -> tuple[list[Sequence], float]:
    """Names those to give up so that the fewest are late, and tells when the others will be done.

    Args:
        shares: Those who wait side by side.
        begins_s: When the first step begins that is theirs.
        step_s: What a step takes in which nobody's prompt is.
    """
    given_up: list[Sequence] = []
    ends_s = begins_s
    for share in shares:
        others, needed_s = _late(share, begins_s, step_s)
        given_up += others
        ends_s += needed_s
    return given_up, ends_s


def _late(share: Share, begins_s: float, step_s: float) -> tuple[list[Sequence], float]:
    taken: list[tuple[float, int, Sequence]] = []
    given_up: list[Sequence] = []
    ends_s, step_due_s = begins_s, -math.inf
    for number, (due_s, needs_s, sequence) in enumerate(share.candidates):
        if ends_s + needs_s / share.part > step_due_s:
            ends_s, step_due_s = ends_s + step_s, math.inf
        ends_s += needs_s / share.part
        step_due_s = min(step_due_s, due_s)
        heappush(taken, (-needs_s, number, sequence))
        if ends_s > due_s:
            longest_s, _, longest = heappop(taken)
            ends_s += longest_s / share.part
            given_up.append(longest)
    return given_up, -sum(longest_s for longest_s, _, _ in taken)
