"""Why each batch closed, and what was in it: the scheduler's account of itself."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Lane

KEPT_BATCHES = 512
"""Closed batches that can be looked at: seconds of a fast model's steps, minutes of a slow one's, and less than a MiB."""


Composition = Mapping[tuple[Lane, str], int]
"""Decodes of a step by lane and tenant."""


class Closed(StrEnum):
    """What kept one more sequence, or one more token, out of a step."""

    BUDGET = "budget"
    """The step has all the tokens that it may."""
    KV_BLOCKS = "kv_blocks"
    """The next sequence found no room in the KV cache."""
    QUEUE_EMPTY = "queue_empty"
    """Everything that could run did."""
    MAX_SEQUENCES = "max_sequences"
    """All rows are taken."""
    TARGET = "target"
    """More would have taken the step past what the latency targets leave."""
    MIXING = "mixing"
    """Prompts and streams in one step would have taken longer than in one step each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneShare:
    """What one lane had of a step, and how many of its sequences were left waiting."""

    decodes: int = 0
    prefill_chunks: int = 0
    prefill_tokens: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedBatch:
    """One step, after the fact.

    Attributes:
        number: Counts the engine's steps from 1.
        started_s: When it was planned, by the process's monotonic clock.
        reason: Why no more was put into it.
        lanes: Each lane's share; every lane is there.
        tenants: Tokens computed for each tenant that had any.
        kv_blocks_used: KV blocks that somebody held when the batch closed.
        kv_blocks_total: KV blocks there are.
        token_budget: Tokens that the step might have had.
        predicted_s: How long it was expected to take; None while nothing is learned yet.
        measured_s: How long it took.
    """

    number: int
    started_s: float
    reason: Closed
    lanes: Mapping[Lane, LaneShare]
    tenants: Mapping[str, int]
    kv_blocks_used: int
    kv_blocks_total: int
    token_budget: int
    predicted_s: float | None
    measured_s: float

    @property
    def sequences(self) -> int:
        """Sequences in the step."""
        return sum(share.decodes + share.prefill_chunks for share in self.lanes.values())

    @property
    def tokens(self) -> int:
        """Tokens that the step computed."""
        return sum(share.decodes + share.prefill_tokens for share in self.lanes.values())


class History:
    """The last closed batches. One thread adds; any may read."""

    def __init__(self, kept: int = KEPT_BATCHES):
        self._batches: deque[ClosedBatch] = deque(maxlen=kept)

    def add(self, batch: ClosedBatch) -> None:
        """Keeps a batch in the place of the oldest."""
        self._batches.append(batch)

    def last(self) -> ClosedBatch | None:
        """Reads the newest."""
        return self._batches[-1] if self._batches else None

    def read(self) -> tuple[ClosedBatch, ...]:
        """Reads all that are kept, oldest first."""
        return tuple(self._batches.copy())  # copied in one piece: a deque must not change under its reader


def lane_shares(decodes: Composition, prefills: Iterable[Chunk], waiting: Mapping[Lane, int]) -> dict[Lane, LaneShare]:
    """Counts what each lane has of a batch; `waiting` are the sequences of each that are left out."""
    counts = {lane: [0, 0, 0] for lane in Lane}
    for (lane, _), count in decodes.items():
        counts[lane][0] += count
    for chunk in prefills:
        share = counts[chunk.sequence.lane]
        share[1] += 1
        share[2] += chunk.count
    return {
        lane: LaneShare(decodes=streams, prefill_chunks=chunks, prefill_tokens=tokens, waiting=waiting.get(lane, 0))
        for lane, (streams, chunks, tokens) in counts.items()
    }


def tenant_tokens(decodes: Composition, prefills: Iterable[Chunk]) -> dict[str, int]:
    """Counts the tokens that a batch computes for each tenant."""
    tokens: dict[str, int] = {}
    for (_, tenant), count in decodes.items():
        tokens[tenant] = tokens.get(tenant, 0) + count
    for chunk in prefills:
        tenant = chunk.sequence.tenant
        tokens[tenant] = tokens.get(tenant, 0) + chunk.count
    return tokens
