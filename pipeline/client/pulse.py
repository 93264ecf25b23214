"""Whether the log still answers, as far as a reader can tell. Pure."""

from dataclasses import dataclass

PROBE_AFTER_S = 2.0
"""How long the log may be silent, while answers are awaited, before it is asked for a sign of life."""


@dataclass(slots=True)
class Pulse:
    """Remembers when the log was heard last, and since when it has not answered.

    Attributes:
        heard_s: When it was heard or asked last (monotonic clock).
        lost_since_s: When it was heard last before it left a probe unanswered; None while it answers.
    """

    heard_s: float
    lost_since_s: float | None = None

    def beat(self, now_s: float) -> None:
        """Notes a sign of life."""
        self.heard_s, self.lost_since_s = now_s, None

    def miss(self, now_s: float) -> None:
        """Notes that a probe went unanswered; the next one is due as if the log had been heard now."""
        if self.lost_since_s is None:
            self.lost_since_s = self.heard_s
        self.heard_s = now_s

    def is_due(self, now_s: float) -> bool:
        """Tells whether it is time to probe."""
        return now_s - self.heard_s >= PROBE_AFTER_S

    def away_s(self, now_s: float) -> float | None:
        """How long the log has been away; None while it answers."""
        return None if self.lost_since_s is None else now_s - self.lost_since_s
