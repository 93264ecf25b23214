"""Server-sent events, as far as OpenAI's streams use them (WHATWG HTML, 9.2.6): the data of each, from bytes that come in any pieces."""

from collections.abc import Iterator

from schemas.errors import EngineError

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A chunk with twenty log-probabilities for each of many tokens stays far below; a server that never ends a line is cut off."""


class EventReader:
    """Feed it what arrives; it gives the data of every event that is complete."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []  # pieces of a line without an end: joined once, however many there are
        self._begun_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Takes bytes.

        Raises:
            EngineError: One event is larger than any that means well.
        """
        *lines, rest = received.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._begun, lines[0]))
            self._begun, self._begun_bytes = [], 0
        self._begun.append(rest)
        self._begun_bytes += len(rest)
        for line in lines:
            if (data := self._line(line.removesuffix(b"\r"))) is not None:
                yield data
        if self._begun_bytes + self._data_bytes > MAX_EVENT_BYTES:
            raise EngineError("the server behind this model sent an event that never ends")

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            data, self._data, self._data_bytes = self._data, [], 0
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value)
        return None
