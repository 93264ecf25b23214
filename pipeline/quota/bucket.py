"""A rate, as the generic cell rate algorithm keeps it: one number per bucket. Pure.

The number is the moment at which the bucket will be full again if nothing more is taken (ITU-T I.371 calls it the
theoretical arrival time). What is taken moves it into the future, what is given back moves it towards the present, and the
clock fills the bucket by running.
"""

import math
from dataclasses import dataclass

SLACK_S = 1e-9
"""A wait below this is rounding."""


@dataclass(slots=True)
class Bucket:
    """Lets through one unit per `interval_s` in the long run, and `burst_s` worth of them at once.

    An amount above the whole bucket goes through when the bucket is full, and everybody waits until it is paid off: otherwise
    it would never go.
    """

    interval_s: float
    burst_s: float
    full_at_s: float = -math.inf

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until `amount` would be let through; 0 if it is now."""
        wait_s = max(self.full_at_s, now_s) + min(amount * self.interval_s, self.burst_s) - self.burst_s - now_s
        return wait_s if wait_s > SLACK_S else 0.0

    def take(self, amount: float, now_s: float) -> None:
        """Takes `amount`, there or not; a negative one is given back. A full bucket keeps nothing of what it is given."""
        self.full_at_s = max(self.full_at_s, now_s) + amount * self.interval_s
