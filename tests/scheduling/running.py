"""A scheduler in a test's hands."""

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Sequence


def scheduler(blocks: int = 64, block_tokens: int = 4, max_sequences: int = 8, token_budget: int = 32) -> Scheduler:
    """A scheduler with a pool of its own."""
    return Scheduler(BlockPool(blocks, block_tokens), max_sequences=max_sequences, token_budget=token_budget)


def run(scheduler: Scheduler, batch: Batch) -> list[Sequence]:
    """Does what an engine does to the sequences of a batch; returns those that got a token."""
    sampled = batch.decodes + [chunk.sequence for chunk in batch.prefills if chunk.samples]
    scheduler.advance(batch)
    for sequence in sampled:
        sequence.output_ids.append(len(sequence.output_ids))
    return sampled
