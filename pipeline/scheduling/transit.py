"""What a live request has behind it when it reaches the engine, and its first token before it when it leaves: targets are about both. Pure.

It is the medians that count: what is planned for is the p95 of what lies between, and hardly any request meets with the p95 of all.
"""

from pipeline.scheduling.quantiles import Window

REMEMBERED = 64
"""Live requests that the medians are taken of: as many as the observed p95 of their waits is."""
LONGEST_S = 1.0
"""Whose record is older than that when it comes was held up in the log, or has a clock of its own: it tells nothing of the way."""


class Transit:
    """How long live requests' records took of late to the engine, and their first tokens from it until the log had acknowledged them.

    One thread both tells and asks; any other may read the medians.

    Attributes:
        inbound_s: What half of the records stayed within, from their timestamps until they could be fetched; 0 while none was seen.
        outbound_s: What half of the first tokens stayed within.
    """

    def __init__(self) -> None:
        self.inbound_s = self.outbound_s = 0.0
        self._inbound, self._outbound = Window(REMEMBERED), Window(REMEMBERED)

    @property
    def total_s(self) -> float:
        """Both ways."""
        return self.inbound_s + self.outbound_s

    def observe_inbound(self, log_s: float, unwatched_s: float) -> None:
        """Learns of a record.

        Args:
            log_s: From its timestamp until it was fetched.
            unwatched_s: How long nobody had looked before: it came in the middle of that as likely as not, and then waited.
        """
        if log_s - unwatched_s <= LONGEST_S:
            self._inbound.add(log_s - unwatched_s / 2)
            self.inbound_s = max(self._inbound.quantile(0.5), 0.0)

    def observe_outbound(self, seconds: float) -> None:
        """Learns of a first token."""
        self._outbound.add(seconds)
        self.outbound_s = self._outbound.quantile(0.5)
