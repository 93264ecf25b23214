"""From a plan to tensors: a batch's tokens packed into one row, and what attention must know of it."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.engine.attention.step import AttentionStep, DecodeBucket, PrefillChunk
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Sequence

Numbers = npt.NDArray[np.int64]

BUCKET_PADDING_TOKENS = 1_024
"""Padding that a decode bucket may hold: about what the launches of one more bucket cost."""

_computed_tokens = attrgetter("computed_tokens")


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """A step's input.

    Attributes:
        input_ids: [1, T], int64.
        position_ids: [1, T], int64.
        attention: The same batch as attention sees it.
        last: Places in the row whose logits are sampled from, then those of the first slice of `scored`, [samples + places], int64.
        samples: The sequences that are sampled.
        scored: Runs of places whose logits tell how likely the prompt's next token is, in slices of bounded size.
        further: Places of the other slices of `scored`, [places] each, int64.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention: AttentionStep
    last: Tensor
    samples: list[Sequence]
    scored: list[list[Chunk]]
    further: tuple[Tensor, ...]


class Packer:
    """Keeps the block tables of running sequences as an array, a row each, and packs batches with it.

    A row's unused places repeat the sequence's own first block: padding then reads nothing that a neighbour wrote. At most
    `scored_places` of a batch are scored at a time.
    """

    def __init__(self, *, rows: int, blocks_per_sequence: int, block_tokens: int, scored_places: int, device: torch.device):
        self._tables: Numbers = np.zeros((rows, blocks_per_sequence), dtype=np.int64)
        self._block_tokens = block_tokens
        self._scored_places = scored_places
        self._device = device

    def admit(self, sequence: Sequence) -> None:
        """Takes in the block table of a sequence that got its row."""
        table = self._tables[sequence.row]
        table[:] = sequence.block_table[0]
        table[: len(sequence.block_table)] = sequence.block_table

    def grow(self, sequence: Sequence) -> None:
        """Takes in the last block of a sequence that got a further one."""
        self._tables[sequence.row, len(sequence.block_table) - 1] = sequence.block_table[-1]

    def pack(self, decodes: Seq[Sequence], prefills: Seq[Chunk]) -> PackedBatch:
        """Packs sequences that decode and chunks that prefill into one row."""
        decodes = sorted(decodes, key=_computed_tokens, reverse=True)
        ends = np.cumsum([len(decodes), *(chunk.count for chunk in prefills)])
        sampling = [i for i, chunk in enumerate(prefills, 1) if chunk.samples]
        positions = np.fromiter(map(_computed_tokens, decodes), np.int64, len(decodes))
        spans = _spans((positions // self._block_tokens + 1).tolist(), BUCKET_PADDING_TOKENS // self._block_tokens)
        longest = spans[0][2] if spans else 0
        tables = self._tables[:, :longest][np.fromiter((s.row for s in decodes), np.int64, len(decodes))]
        bucketed = [array for first, end, blocks in spans for array in (tables[first:end, :blocks].ravel(), positions[first:end] + 1)]
        contexts = [self._tables[chunk.sequence.row, : -(-(chunk.start + chunk.count) // self._block_tokens)] for chunk in prefills]
        slices = _scored(prefills, ends, self._scored_places)
        last = np.concatenate((np.arange(len(decodes)), ends[sampling] - 1, *(places for _, places in slices[:1])))
        heads = [last, *(places for _, places in slices[1:])]
        row = self._row(decodes, positions, tables, prefills)
        input_ids, position_ids, slots, *rest = _upload([*row, *heads, *bucketed, *contexts], self._device)
        (last_places, *further), rest = rest[: len(heads)], rest[len(heads) :]
        buckets = tuple(
            DecodeBucket(first, end - first, rest[2 * i], rest[2 * i + 1], blocks * self._block_tokens)
            for i, (first, end, blocks) in enumerate(spans)
        )
        chunks = tuple(
            PrefillChunk(int(start), chunk.count, chunk.start + chunk.count, blocks)
            for start, chunk, blocks in zip(ends, prefills, rest[2 * len(spans) :], strict=False)
        )
        return PackedBatch(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            attention=AttentionStep(slots, buckets, chunks),
            last=last_places,
            samples=decodes + [prefills[i - 1].sequence for i in sampling],
            scored=[chunks for chunks, _ in slices],
            further=tuple(further),
        )

    def _row(self, decodes: Seq[Sequence], positions: Numbers, tables: Numbers, prefills: Seq[Chunk]) -> tuple[Numbers, Numbers, Numbers]:
        """The packed tokens: their ids, their positions and their slots in the cache."""
        ids = [np.array([s.token_ids(s.computed_tokens, 1)[0] for s in decodes], dtype=np.int64)]
        places = [positions]
        slots = [self._slots(tables[np.arange(len(decodes)), positions // self._block_tokens], positions)]
        for chunk in prefills:
            own = np.arange(chunk.start, chunk.start + chunk.count)
            ids.append(np.array(chunk.sequence.token_ids(chunk.start, chunk.count), dtype=np.int64))
            places.append(own)
            slots.append(self._slots(self._tables[chunk.sequence.row, own // self._block_tokens], own))
        return np.concatenate(ids), np.concatenate(places), np.concatenate(slots)

    def _slots(self, blocks: Numbers, positions: Numbers) -> Numbers:
        return blocks * self._block_tokens + positions % self._block_tokens


def _scored(prefills: Seq[Chunk], ends: Numbers, most_places: int) -> list[tuple[list[Chunk], Numbers]]:
    """Finds what of the chunks is to be scored, and where it lies in the row, in slices of at most so many places.

    Args:
        prefills: The chunks.
        ends: Where each of them begins in the row, and the row's end.
        most_places: Places of a slice.
    """
    runs = list(_runs(prefills, ends))
    slices: list[tuple[list[Chunk], Numbers]] = []
    while runs:
        room, chunks, places = most_places, [], []
        while runs and room:
            chunk, begins = runs.pop(0)
            taken = min(chunk.count, room)
            chunks.append(Chunk(chunk.sequence, chunk.start, taken))
            places.append(np.arange(begins, begins + taken))
            room -= taken
            if taken < chunk.count:
                runs.insert(0, (Chunk(chunk.sequence, chunk.start + taken, chunk.count - taken), begins + taken))
        slices.append((chunks, np.concatenate(places)))
    return slices


def _runs(prefills: Seq[Chunk], ends: Numbers) -> Iterator[tuple[Chunk, int]]:
    """The places of each chunk that are to be scored, and where they begin in the row."""
    for begins, chunk in zip(ends.tolist(), prefills, strict=False):
        if (unscored := chunk.sequence.unscored_tokens) <= 0:
            continue
        last = len(chunk.sequence.prompt_ids) - 1
        start, end = max(chunk.start, last - unscored), min(chunk.start + chunk.count, last)
        if start < end:
            yield Chunk(chunk.sequence, start, end - start), begins + start - chunk.start


def _spans(blocks: list[int], padding_blocks: int) -> list[tuple[int, int, int]]:
    """Cuts sequences in falling order of `blocks` into buckets (first, end, blocks of the longest) of bounded padding."""
    spans = []
    first = padding = 0
    for i, held in enumerate(blocks):
        padding += blocks[first] - held
        if padding > padding_blocks:
            spans.append((first, i, blocks[first]))
            first, padding = i, 0
    if blocks:
        spans.append((first, len(blocks), blocks[first]))
    return spans


def _upload(arrays: list[Numbers], device: torch.device) -> tuple[Tensor, ...]:
    """Moves arrays to the device in one copy."""
    packed = torch.from_numpy(np.concatenate(arrays)).to(device)
    parts: tuple[Tensor, ...] = packed.split([array.size for array in arrays])
    return parts
