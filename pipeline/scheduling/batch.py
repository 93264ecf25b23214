"""What one step computes."""

from dataclasses import dataclass, field

from pipeline.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """`count` tokens of one sequence's prompt (or of what a preempted sequence computes again), from position `start`."""

    sequence: Sequence
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Tells whether the chunk reaches the sequence's last token, so that the next one can be sampled, where there is to be one."""
        return self.sequence.is_continued and self.start + self.count == self.sequence.tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """The plan of one step: `decodes` compute their one pending token each, then come the chunks of prefill.

    `admitted` got a row in this plan, `grown` a further block; both are named so that tables kept per row can follow. `copies`
    (from block, to block) come before anything is computed.
    """

    decodes: list[Sequence]
    prefills: list[Chunk]
    admitted: list[Sequence]
    grown: list[Sequence]
    copies: list[tuple[int, int]] = field(default_factory=list)

    @property
    def sequences(self) -> int:
        """Sequences in the step."""
        return len(self.decodes) + len(self.prefills)

    @property
    def tokens(self) -> int:
        """Tokens that the step computes."""
        return len(self.decodes) + sum(chunk.count for chunk in self.prefills)

    def shortened(self) -> "Batch":
        """Gives the first half of the one chunk that the step consists of."""
        (chunk,) = self.prefills
        return Batch([], [Chunk(chunk.sequence, chunk.start, chunk.count // 2)], [], [])

    def halves(self) -> tuple["Batch", "Batch"]:
        """Cuts the step in two that compute the same, to find which sequence makes it fail; rows and tables are not touched again."""
        cut = self.sequences // 2
        prefills_cut = max(cut - len(self.decodes), 0)
        return (
            Batch(self.decodes[:cut], self.prefills[:prefills_cut], [], []),
            Batch(self.decodes[cut:], self.prefills[prefills_cut:], [], []),
        )
