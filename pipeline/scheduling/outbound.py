"""What a first token still has before it when it leaves the engine: targets are about when it is in the log. Pure."""

from pipeline.scheduling.quantiles import Window

REMEMBERED = 64
"""First tokens of live requests that the p95 is taken of: the same that the observed p95 of their waits is."""


class Outbound:
    """How long live requests' first tokens took of late from the engine until the log had acknowledged them.

    One thread both tells and asks; any other may read `p95_s`.

    Attributes:
        p95_s: What 95 of 100 stayed within; 0 while none was seen.
    """

    def __init__(self) -> None:
        self.p95_s = 0.0
        self._seen = Window(REMEMBERED)

    def observe(self, seconds: float) -> None:
        """Learns of one."""
        self._seen.add(seconds)
        self.p95_s = self._seen.quantile(0.95)
