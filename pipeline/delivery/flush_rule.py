"""When the tokens of answers leave."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushRule:
    """When pending tokens become events: an answer's first at once, those of all answers after the interval, or when one answer has so many.

    Together, since the log is written, sent and read in batches: one of 64 events costs about what one of 4 does.
    """

    interval_s: float
    tokens: int

    def widened(self, factor: float) -> "FlushRule":
        """Gives a rule that makes fewer and larger events."""
        return FlushRule(interval_s=self.interval_s * factor, tokens=int(self.tokens * factor))
