"""Whether a step had better wait for more texts. Pure: time is an argument.

Generation never waits: whoever comes late joins at the next token. A text that is only read has a single step, and who
comes after it has begun pays for another, with all that a step costs whatever is in it. So a step waits while that cost,
saved once for the next arrival, is more than what everybody who is there loses: the number of those, times the expected gap
to the next arrival. Once they have lost as much as there was to gain, they go, whatever was expected (as one who rents skis
buys them when the rent has reached their price).
"""

from dataclasses import dataclass

MEMORY_ARRIVALS = 16
"""How many gaps the expected one is made of, about."""
MEMORY_STEPS = 200
LONG_GAP = 4
"""Gaps count for at most so many of the longest waits: after a quiet night the first burst must not look like the night."""


@dataclass(slots=True)
class StepCost:
    """The time of a step as a line over its tokens, by least squares, older steps counting ever less."""

    weight: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    tokens_squared: float = 0.0
    product: float = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Learns from one step."""
        kept = 1 - 1 / MEMORY_STEPS
        self.weight = self.weight * kept + 1
        self.tokens = self.tokens * kept + tokens
        self.seconds = self.seconds * kept + seconds
        self.tokens_squared = self.tokens_squared * kept + tokens * tokens
        self.product = self.product * kept + tokens * seconds

    @property
    def fixed_s(self) -> float:
        """What a step costs whatever is in it; 0 as long as steps have not differed enough to tell."""
        spread = self.weight * self.tokens_squared - self.tokens * self.tokens
        if spread <= 1e-6 * self.tokens_squared * self.weight:
            return 0.0
        slope = max((self.weight * self.product - self.tokens * self.seconds) / spread, 0.0)
        return max((self.seconds - slope * self.tokens) / self.weight, 0.0)


class Patience:
    """Decides until when to wait.

    Args:
        max_wait_s: The longest that anybody is made to wait; 0 never waits.
    """

    def __init__(self, max_wait_s: float):
        self._max_wait_s = max_wait_s
        self._gap_s: float | None = None
        self._arrived_s: float | None = None
        self._cost = StepCost()

    def note_arrival(self, now_s: float) -> None:
        """Learns from a request that has come."""
        if self._arrived_s is not None:
            gap_s = min(now_s - self._arrived_s, LONG_GAP * self._max_wait_s)
            self._gap_s = gap_s if self._gap_s is None else self._gap_s + (gap_s - self._gap_s) / MEMORY_ARRIVALS
        self._arrived_s = now_s

    def note_step(self, tokens: int, seconds: float) -> None:
        """Learns from a step."""
        self._cost.note(tokens, seconds)

    def waits_until_s(self, requests: int, oldest_s: float) -> float:
        """When to go, as long as nobody else comes; 0 for at once.

        Args:
            requests: How many would be kept waiting.
            oldest_s: When the first of them came.
        """
        gain_s = self._cost.fixed_s
        if not requests or self._gap_s is None or self._arrived_s is None or requests * self._gap_s >= gain_s:
            return 0.0
        return min(oldest_s + self._max_wait_s, self._arrived_s + gain_s / requests)
