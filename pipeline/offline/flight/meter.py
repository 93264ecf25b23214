"""How much a caller makes the door hold: the length of each gRPC message is looked at before the message passes.

Arrow Flight takes messages of any length, and has all of one in memory before it looks at the token or lets anybody look at the rows;
its server has no way to say otherwise from Python. So what callers send is measured on its way there. A message begins with five
bytes (gRPC over HTTP/2): whether it is compressed, and its length.
"""

from dataclasses import dataclass, field
from struct import Struct

from pipeline.offline.flight.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE_BYTES,
    STATUS_200,
    STREAM_BITS,
    Splitter,
    write_field,
    write_frame,
)

MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest message: gRPC's own default. A record batch has at most a quarter of it, and what is a little too large is told by the door."""
STREAMS = 1_024
"""Calls of one connection that have sent a part of a message at a time."""
UNIMPLEMENTED, RESOURCE_EXHAUSTED, UNAVAILABLE = 12, 8, 14
"""gRPC's codes."""

_PREFIX = Struct(">?I")


class Excess(Exception):
    """A caller sends more than the door takes; its connection ends.

    Attributes:
        stream: The call.
        code: gRPC's.
    """

    def __init__(self, message: str, stream: int, code: int):
        super().__init__(message)
        self.stream = stream
        self.code = code


@dataclass(slots=True)
class Room:
    """What messages that are not complete yet may take, of all connections together."""

    limit_bytes: int
    used_bytes: int = 0


@dataclass(slots=True)
class _Message:
    """The message that a call is sending."""

    prefix: bytearray = field(default_factory=bytearray)
    left_bytes: int = 0
    held_bytes: int = 0


class Meter:
    """Measures what one caller sends.

    Args:
        room: What it shares with the others.
        limit_bytes: The largest message.
    """

    def __init__(self, room: Room, limit_bytes: int = MESSAGE_BYTES):
        self._room = room
        self._limit_bytes = limit_bytes
        self._frames = Splitter(PREFACE_BYTES)
        self._messages: dict[int, _Message] = {}

    def feed(self, data: bytes) -> None:
        """Looks at the next bytes, before they pass.

        Raises:
            Excess: They must not.
        """
        for frame, piece, is_last in self._frames.feed(data):
            if frame.kind == DATA:
                if frame.flags & ~END_STREAM:
                    raise Excess("a frame is padded", frame.stream, UNIMPLEMENTED)  # nor does gRPC's own server take such
                self._measure(frame.stream, piece)
            if is_last and frame.ends_stream:
                self._forget(frame.stream)

    def close(self) -> None:
        """Gives back what the caller took of the room."""
        for stream in list(self._messages):
            self._forget(stream)

    def _measure(self, stream: int, piece: memoryview) -> None:
        message = self._messages.get(stream)
        if message is None:
            if len(self._messages) >= STREAMS:
                raise Excess(f"there are {STREAMS} calls at a time already", stream, RESOURCE_EXHAUSTED)
            message = self._messages[stream] = _Message()
        while piece:
            if not message.left_bytes:
                piece = self._begin(message, piece, stream)
            taken_bytes = min(message.left_bytes, len(piece))
            self._hold(message, taken_bytes, stream)
            piece = piece[taken_bytes:]

    def _begin(self, message: _Message, piece: memoryview, stream: int) -> memoryview:
        """Reads on in what a message begins with."""
        missing = _PREFIX.size - len(message.prefix)
        message.prefix += piece[:missing]
        if len(message.prefix) == _PREFIX.size:
            is_compressed, size_bytes = _PREFIX.unpack(message.prefix)
            message.prefix.clear()
            if is_compressed:
                raise Excess("a message is compressed by gRPC: compress its columns, or nothing", stream, UNIMPLEMENTED)
            if size_bytes > self._limit_bytes:
                raise Excess(f"a message has {size_bytes} bytes: send record batches of at most 1 MiB", stream, RESOURCE_EXHAUSTED)
            message.left_bytes = size_bytes
        return piece[missing:]

    def _hold(self, message: _Message, size_bytes: int, stream: int) -> None:
        if self._room.used_bytes + size_bytes > self._room.limit_bytes:
            raise Excess("all callers together send more than the door has room for: try again", stream, UNAVAILABLE)
        self._room.used_bytes += size_bytes
        message.held_bytes += size_bytes
        message.left_bytes -= size_bytes
        if not message.left_bytes:  # complete: the server's to bound, which reads one of a call at a time
            self._give_back(message)

    def _forget(self, stream: int) -> None:
        if (message := self._messages.pop(stream, None)) is not None:
            self._give_back(message)

    def _give_back(self, message: _Message) -> None:
        self._room.used_bytes -= message.held_bytes
        message.held_bytes = 0


class Answering:
    """What passes on the way back, as far as it takes to put in a last word."""

    def __init__(self) -> None:
        self._frames = Splitter()
        self._begun: set[int] = set()
        self._is_in_headers = False

    @property
    def is_between(self) -> bool:
        """Whether a word may be put in here: not within a frame, nor within headers that take several."""
        return self._frames.is_between and not self._is_in_headers

    def feed(self, data: bytes) -> None:
        """Notes the next bytes."""
        for frame, _, is_last in self._frames.feed(data):
            if not is_last:
                continue
            if frame.kind == HEADERS:
                self._begun.add(frame.stream)
            if frame.kind in (HEADERS, CONTINUATION):
                self._is_in_headers = not frame.flags & END_HEADERS
            if frame.ends_stream:
                self._begun.discard(frame.stream)

    def last_word(self, excess: Excess) -> bytes:
        """Ends the call with a status that says why, and has the caller begin no other on this connection."""
        status = write_field("grpc-status", str(excess.code)) + write_field("grpc-message", str(excess))
        begin = b"" if excess.stream in self._begun else STATUS_200 + write_field("content-type", "application/grpc")
        ended = write_frame(HEADERS, END_STREAM | END_HEADERS, excess.stream, begin + status)
        return ended + write_frame(GOAWAY, 0, 0, STREAM_BITS.to_bytes(4, "big") + bytes(4))
