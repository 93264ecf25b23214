"""The reader's rule: which events of a stream count, whatever crashed (wire contract 1)."""

from dataclasses import dataclass

from schemas.events import Begin, Chunk, End, Error, Event, Reset


@dataclass(slots=True)
class Fence:
    """Admits every event of one request at most once and in order.

    Feed it the request's records of the reply partition in offset order. After a takeover the new attempt's `begin`
    makes everything older invisible, a zombie's late writes included.

    Attributes:
        attempt: Offset of the current attempt's `begin`; None until one was seen.
        epoch: The current attempt's epoch; -1 until one was seen.
        next_seq: The sequence number that counts next, which is how many events count so far.
        closed: A terminal event was admitted; nothing counts any more.
    """

    attempt: int | None = None
    epoch: int = -1
    next_seq: int = 0
    closed: bool = False

    def admits(self, event: Event, offset: int) -> bool:
        """Tells whether `event`, read at `offset`, counts, and moves past it if so.

        A `Begin` or `Reset` that counts voids everything admitted before; a `Begin` that merely opens or continues the
        stream takes effect and does not count.
        """
        if self.closed:
            return False
        match event:
            case Begin():
                return self._begins(event, offset)
            case Reset(attempt=self.attempt):
                self.next_seq = 0
                return True
            case Error(attempt=None):  # refused before anything began
                self.closed = self.attempt is None
                return self.closed
            case Chunk() | End() | Error() if (event.attempt, event.seq) == (self.attempt, self.next_seq):
                self.next_seq += 1
                self.closed = not isinstance(event, Chunk)
                return True
        return False

    def _begins(self, begin: Begin, offset: int) -> bool:
        if begin.epoch < self.epoch:  # a zombie's
            return False
        self.attempt, self.epoch = offset, begin.epoch
        voids = not begin.resume and self.next_seq > 0
        if voids:
            self.next_seq = 0
        return voids
