"""What computes a batch: all its sequences in one packed row over a paged cache, or each by itself."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from pipeline.engine.packing import Packer
from pipeline.engine.runner import Runner
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What came of a batch.

    Attributes:
        samples: The sequences whose next token can be sampled.
        logits: First theirs, then those of the places in `scored`, [samples + places, vocabulary], in the model's dtype.
        scored: Runs of places in prompts whose next token is to be scored.
    """

    samples: list[Sequence]
    logits: Tensor
    scored: list[Chunk] = field(default_factory=list)


class Execution(Protocol):
    """Follows the scheduler's decisions and computes what it planned."""

    def admit(self, sequence: Sequence) -> None:
        """Takes note of a sequence that got a row and blocks."""
        ...

    def grow(self, sequence: Sequence) -> None:
        """Takes note of a sequence that got a further block."""
        ...

    def copy(self, blocks: Seq[tuple[int, int]]) -> None:
        """Copies blocks (from, to), before anything else is computed."""
        ...

    def run(self, decodes: Seq[Sequence], prefills: Seq[Chunk]) -> Computed:
        """Computes a batch; running the same one again gives the same."""
        ...

    def wipe(self, blocks: Seq[int]) -> None:
        """Wipes out what sequences that failed left behind, in blocks that nobody holds now."""
        ...

    def close(self) -> None:
        """Frees the device's memory."""
        ...


@dataclass(frozen=True, slots=True)
class PagedExecution:
    """One packed row over a paged cache."""

    packer: Packer
    runner: Runner

    def admit(self, sequence: Sequence) -> None:
        """Keeps its block table."""
        self.packer.admit(sequence)

    def grow(self, sequence: Sequence) -> None:
        """Keeps its block table."""
        self.packer.grow(sequence)

    def copy(self, blocks: Seq[tuple[int, int]]) -> None:
        """Copies keys and values."""
        self.runner.attention.copy(blocks)

    def run(self, decodes: Seq[Sequence], prefills: Seq[Chunk]) -> Computed:
        """Packs and computes."""
        packed = self.packer.pack(decodes, prefills)
        return Computed(packed.samples, self.runner.run(packed), packed.scored)

    def wipe(self, blocks: Seq[int]) -> None:
        """Zeroes the blocks: what is no number must not reach whoever gets them."""
        self.runner.attention.clear(blocks)

    def close(self) -> None:
        """Lets go of weights and cache."""
        self.runner.close()
