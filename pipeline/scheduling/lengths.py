"""How long outputs turn out, by lane, so that room is kept for what will probably come and not for what might."""

from pipeline.scheduling.quantiles import Window
from pipeline.scheduling.sequence import Lane, Sequence

REMEMBERED = 512
ENOUGH = 16
"""Outputs of a lane, as long as the one in question at least, before their lengths count."""
SHARE = 0.9
"""A sequence's output is expected to be no longer than this share of comparable ones was."""


class Lengths:
    """Lengths of the outputs that ended."""

    def __init__(self) -> None:
        self._seen = {lane: Window(REMEMBERED) for lane in Lane}

    def observe(self, sequence: Sequence) -> None:
        """Takes note of a sequence that ended while it ran, for whatever reason: that is how much room it needed."""
        self._seen[sequence.lane].add(len(sequence.output_ids))

    def expected_tokens(self, sequence: Sequence) -> int:
        """Tells how many tokens a sequence will probably have in the end: at most what it may, and that where too little is known."""
        most, seen = sequence.max_output_tokens, self._seen[sequence.lane]
        output_tokens = len(sequence.output_ids)
        if seen.count_above(output_tokens) >= ENOUGH:
            likely = int(seen.quantile(SHARE, above=output_tokens))
            most = likely if most is None else min(likely, most)
        return len(sequence.prompt_ids) + max(output_tokens + 1, most or 0)
