"""What a first token still has before it when it leaves the engine: targets are about when it is in the log. Pure.

It is the median that counts: what is planned for is the p95 of what comes before, and hardly any request meets with the p95 of both.
"""

from pipeline.scheduling.quantiles import Window

REMEMBERED = 64
"""First tokens of live requests that the median is taken of: the same that the observed p95 of their waits is."""


class Outbound:
    """How long live requests' first tokens took of late from the engine until the log had acknowledged them.

    One thread both tells and asks; any other may read `median_s`.

    Attributes:
        median_s: What half of them stayed within; 0 while none was seen.
    """

    def __init__(self) -> None:
        self.median_s = 0.0
        self._seen = Window(REMEMBERED)

    def observe(self, seconds: float) -> None:
        """Learns of one."""
        self._seen.add(seconds)
        self.median_s = self._seen.quantile(0.5)
