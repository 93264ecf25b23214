"""What computes a batch: all its sequences in one packed row over a paged cache, or each by itself."""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pipeline.engine.packing import Packer
from pipeline.engine.runner import Runner
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Places in prompts whose next token is to be scored.

    Attributes:
        chunks: Runs of them.
        logits: Makes theirs, [places, vocabulary], in the model's dtype. Large: who has scored one slice lets go of it before the next.
    """

    chunks: list[Chunk]
    logits: Callable[[], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What came of a batch.

    Attributes:
        samples: The sequences whose next token can be sampled.
        logits: Theirs, [samples, vocabulary], in the model's dtype.
        scored: What is to be scored, in slices.
    """

    samples: list[Sequence]
    logits: Tensor
    scored: Seq[Slice] = ()


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
        logits, further = self.runner.run_in_slices(packed)
        sampled = len(packed.samples)
        makers = [lambda: logits[sampled:], *further]
        return Computed(packed.samples, logits[:sampled], [Slice(*both) for both in zip(packed.scored, makers, strict=False)])

    def wipe(self, blocks: Seq[int]) -> None:
        """Zeroes the blocks: what is no number must not reach whoever gets them."""
        self.runner.attention.clear(blocks)

    def close(self) -> None:
        """Lets go of weights and cache."""
        self.runner.close()
