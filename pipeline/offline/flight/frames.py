"""Frames of HTTP/2 (RFC 9113) as they pass, and the few that the door writes itself; nothing of a frame is kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

PREFACE_BYTES = 24
"""What a caller sends before its first frame."""
DATA, HEADERS, RESET, GOAWAY, CONTINUATION = 0x0, 0x1, 0x3, 0x7, 0x9
END_STREAM, END_HEADERS = 0x1, 0x4
STREAM_BITS = 0x7FFF_FFFF
STATUS_200 = b"\x88"
"""`:status: 200`, by its number in HPACK's table (RFC 7541, appendix A)."""
LITERAL_BYTES = 126
"""The longest text whose length takes one byte."""

_HEAD = Struct(">BHBBI")  # the length has three bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """The head of a frame."""

    kind: int
    flags: int
    stream: int
    size_bytes: int

    @property
    def ends_stream(self) -> bool:
        """Whether its sender sends nothing more there."""
        return self.kind == RESET or (self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM))


Piece = tuple[Frame, memoryview, bool]
"""A frame, consecutive bytes of what it carries, and whether these are its last."""


class Splitter:
    """Tells where frames are in bytes that come in parts of any size.

    Args:
        skip_bytes: What comes before the first frame.
    """

    def __init__(self, skip_bytes: int = 0):
        self._skip_bytes = skip_bytes
        self._head = bytearray()
        self._frame: Frame | None = None
        self._left_bytes = 0

    @property
    def is_between(self) -> bool:
        """Whether another frame might be put here."""
        return self._frame is None and not self._head and not self._skip_bytes

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Goes through the next bytes; a frame that carries nothing has one empty piece."""
        rest = memoryview(data)[self._skip_bytes :]
        self._skip_bytes -= len(data) - len(rest)
        while rest:
            if self._frame is None:
                rest = self._read_head(rest)
            if self._frame is not None and (rest or not self._left_bytes):
                frame, piece = self._frame, rest[: self._left_bytes]
                rest = rest[len(piece) :]
                self._left_bytes -= len(piece)
                self._frame = frame if self._left_bytes else None
                yield frame, piece, not self._left_bytes

    def _read_head(self, rest: memoryview) -> memoryview:
        missing = _HEAD.size - len(self._head)
        self._head += rest[:missing]
        if len(self._head) == _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack(self._head)
            self._left_bytes = high << 16 | low
            self._frame = Frame(kind, flags, stream & STREAM_BITS, self._left_bytes)
            self._head.clear()
        return rest[missing:]


def write_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def write_field(name: str, value: str) -> bytes:
    """One header as a literal that nobody remembers (RFC 7541, 6.2.2), so that the other side's table stays as it is; it is cut where it is long."""
    texts = (text.encode()[:LITERAL_BYTES] for text in (name, value))
    return b"\x00" + b"".join(bytes([len(text)]) + text for text in texts)
