"""When the tokens of answers leave."""

from dataclasses import dataclass

from pipeline.scheduling.sequence import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushRule:
    """When pending tokens become events: an answer's first at once, those of a lane after its interval, or when one answer has so many.

    Together, since the log is written, sent and read in batches: one of 64 events costs about what one of 4 does. And flex work's less
    often, since nobody reads along: each event costs the worker, the log and its reader about as much as a token of a small model.
    """

    interval_s: float
    flex_interval_s: float
    tokens: int

    def interval_of(self, lane: Lane) -> float:
        """Tells how long a token of the lane waits at most."""
        return self.flex_interval_s if lane is Lane.FLEX else self.interval_s

    def widened(self, factor: float) -> "FlushRule":
        """Gives a rule that makes fewer and larger events."""
        return FlushRule(interval_s=self.interval_s * factor, flex_interval_s=self.flex_interval_s * factor, tokens=int(self.tokens * factor))
