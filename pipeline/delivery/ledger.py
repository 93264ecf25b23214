"""Which offsets of one partition are done, and how far it may be committed. Pure.

Offsets come in order, with gaps where the log has markers or was compacted: only received offsets are tracked, so a gap
needs no answer. The committed offset is the lowest one in flight; what is done above it travels in the commit's metadata,
so that a successor does not redo it.
"""

import base64
import binascii
import json
from dataclasses import dataclass, field

METADATA_VERSION = 1
METADATA_BYTES = 4_096
"""The broker's default bound (`offset.metadata.max.bytes`)."""


@dataclass(slots=True)
class PartitionLedger:
    """The ledger of one partition, for one assignment.

    Invariant: `committable()` never passes an offset that is in flight, and never moves back.

    Attributes:
        next_offset: The offset after the last received one.
        epoch: Orders the owners of the partition; every `begin` of this assignment carries it.
        window: How many offsets may be open past the committable one.
    """

    next_offset: int
    epoch: int
    window: int
    done_before: frozenset[int] = frozenset()
    _open: dict[int, int] = field(default_factory=dict)
    _done_above: set[int] = field(default_factory=set)

    def receive(self, offset: int, requests: int) -> bool:
        """Takes an offset that carries so many requests.

        Returns:
            False where a predecessor finished it already, or it was received before: nothing is to be done for it.
        """
        if offset < self.next_offset:
            return False
        self.next_offset = offset + 1
        if offset in self.done_before or requests == 0:
            self._settle(offset)
            return False
        self._open[offset] = requests
        return True

    def done(self, offset: int) -> None:
        """Notes that one request of the offset has its terminal record acknowledged."""
        left = self._open[offset] - 1
        if left:
            self._open[offset] = left
            return
        del self._open[offset]
        self._settle(offset)

    def committable(self) -> int:
        """The lowest offset that is not done."""
        return next(iter(self._open), self.next_offset)

    def metadata(self) -> str:
        """What goes with a commit of `committable()`: version and a bitmap of the done offsets from it on."""
        return encode_metadata(self.committable(), self._done_above)

    def open_offsets(self) -> int:
        """How many offsets are in flight."""
        return len(self._open)

    def is_full(self) -> bool:
        """Tells whether the window is used up, so that the partition has to pause."""
        return self.next_offset - self.committable() >= self.window

    def _settle(self, offset: int) -> None:
        floor = self.committable()
        if offset > floor:
            self._done_above.add(offset)
        elif self._done_above:
            self._done_above = {done for done in self._done_above if done > floor}


def encode_metadata(offset: int, done: set[int]) -> str:
    """Encodes the done offsets above `offset` against that very offset. Done offsets too far above for the bound are left out."""
    if not done:
        return json.dumps({"v": METADATA_VERSION}, separators=(",", ":"))
    bits = 0
    for above in done:
        if 0 < above - offset < METADATA_BYTES * 4:
            bits |= 1 << (above - offset)
    bitmap = base64.b85encode(bits.to_bytes((bits.bit_length() + 7) // 8, "little")).decode()
    return json.dumps({"v": METADATA_VERSION, "done": bitmap}, separators=(",", ":"))


def decode_metadata(offset: int, metadata: str) -> frozenset[int]:
    """Reads the offsets that a predecessor finished above its committed `offset`.

    What can't be decoded, or is somebody else's, counts as nothing: replay, never skip.
    """
    if len(metadata) > METADATA_BYTES:
        return frozenset()
    try:
        fields = json.loads(metadata)
        if not isinstance(fields, dict) or fields.get("v") != METADATA_VERSION:
            return frozenset()
        bits = int.from_bytes(base64.b85decode(fields.get("done", "")), "little")
    except (ValueError, TypeError, binascii.Error, RecursionError):
        return frozenset()
    return frozenset(offset + i for i in range(1, bits.bit_length()) if bits >> i & 1)
