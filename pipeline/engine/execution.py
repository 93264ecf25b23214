"""What computes a batch: all its sequences in one packed row over a paged cache, or each by itself."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pipeline.engine.packing import Packer
from pipeline.engine.runner import Runner
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Sequence


class Execution(Protocol):
    """Follows the scheduler's decisions and computes what it planned."""

    def admit(self, sequence: Sequence) -> None:
        """Takes note of a sequence that got a row and blocks."""
        ...

    def grow(self, sequence: Sequence) -> None:
        """Takes note of a sequence that got a further block."""
        ...

    def run(self, decodes: Seq[Sequence], prefills: Seq[Chunk]) -> tuple[list[Sequence], Tensor]:
        """Computes a batch; running the same one again gives the same.

        Returns:
            The sequences whose next token can be sampled, and their logits, [samples, vocabulary], in the model's dtype.
        """
        ...

    def clear(self, sequence: Sequence) -> None:
        """Wipes out what a sequence left behind that failed."""
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

    def run(self, decodes: Seq[Sequence], prefills: Seq[Chunk]) -> tuple[list[Sequence], Tensor]:
        """Packs and computes."""
        packed = self.packer.pack(decodes, prefills)
        return packed.samples, self.runner.run(packed)

    def clear(self, sequence: Sequence) -> None:
        """Zeroes its blocks: what is no number must not reach whoever gets them."""
        self.runner.attention.clear(sequence.block_table)

    def close(self) -> None:
        """Lets go of weights and cache."""
        self.runner.close()
