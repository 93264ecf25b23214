"""A shard's rows on their way to the engine: read a window at a time, each sorted so that what runs together is alike."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.offline.answer import Answer
from pipeline.offline.columns import conform
from pipeline.offline.inputs import refresh
from pipeline.offline.plan import Job, check_file
from pipeline.offline.prompts import Ask, Asking
from pipeline.offline.readers import Piece, Reader, open_reader
from pipeline.offline.refusals import Fault
from schemas.errors import InvalidRequest
from schemas.job import ShardPlan

WINDOW_ROWS = 4_096
WINDOW_BYTES = 32 * 1024 * 1024
"""Of prompt text; long prompts make a window of fewer rows."""
GROUP_ROWS = 64
GROUP_CHARACTERS = 512 * 1024
"""What is journalled and submitted at a time."""


@dataclass(slots=True)
class Window:
    """Rows that were read: those to compute, and those whose answer is known without."""

    asks: list[Ask] = field(default_factory=list)
    known: list[Answer] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.asks) + len(self.known)


class ShardReader:
    """Reads the rows of shards, one file open at a time; one who reads shards in order reads every file once."""

    def __init__(self, job: Job):
        self._job = job
        self._file = -1
        self._reader: Reader | None = None

    def pieces(self, shard: ShardPlan, columns: frozenset[str]) -> Iterator[Piece]:
        """The shard's rows in order, brought to the plan's schema.

        Raises:
            JobRefused: A file has changed since it was planned.
        """
        files = self._job.plan.files
        for part in shard.slices:
            reader = self._open(part.file)
            for piece in reader.read(part.row_group, part.start, part.rows, self._job.schema, columns):
                yield Piece(conform(piece.batch, self._job.schema, columns, files[part.file].partition), piece.faults)

    def close(self) -> None:
        """Closes the file."""
        if self._reader is not None:
            self._reader.close()
        self._file, self._reader = -1, None

    def _open(self, number: int) -> Reader:
        if self._reader is None or self._file != number:
            self.close()
            planned = self._job.plan.files[number]
            source = refresh(planned, self._job.within)
            check_file(planned, source)
            self._reader, self._file = open_reader(source, planned.groups), number
        return self._reader


class Windows:
    """Makes windows of shards."""

    def __init__(self, job: Job, reader: ShardReader):
        self._job = job
        self._reader = reader
        self._asking = Asking(job.spec)

    def read(self, shard: ShardPlan, finished: frozenset[int]) -> Iterator[Window]:
        """Reads the shard's rows but those that are finished. Of rows that ask the same for sure, the first one asks."""
        leaders: dict[bytes, int] = {}
        window, size = Window(), 0
        for ask in self._rows(shard):
            if isinstance(ask, Answer):
                if ask.row not in finished:
                    window.known.append(ask)
            else:
                leader = ask.row if ask.digest is None else leaders.setdefault(ask.digest, ask.row)
                if ask.row in finished:
                    continue
                if leader != ask.row:
                    window.known.append(Answer(row=ask.row, same_as=leader))
                else:
                    window.asks.append(ask)
                    size += ask.size
            if window.rows >= WINDOW_ROWS or size >= WINDOW_BYTES:
                yield window
                window, size = Window(), 0
        if window.rows:
            yield window

    def _rows(self, shard: ShardPlan) -> Iterator[Ask | Answer]:
        identities = enumerate(shard.identities())
        for piece in self._reader.pieces(shard, self._job.needed):
            for row, values in enumerate(piece.batch.to_pylist()):
                place, identity = next(identities)
                try:
                    yield Answer(row=place, fault=piece.faults[row]) if row in piece.faults else self._asking.ask(place, identity, values)
                except InvalidRequest as error:
                    yield Answer(row=place, fault=Fault.of(error))


def in_order(asks: Sequence[Ask], *, is_generation: bool) -> list[Ask]:
    """Sorts by length, the longest first, so that the end of a window is short.

    Prompts of generation that begin alike stay together, for the engine computes what they share once.
    """
    heads = Counter(ask.text for ask in asks) if is_generation else Counter[str]()
    return sorted(asks, key=lambda ask: (ask.text if heads[ask.text] > 1 else "", -ask.size))


def in_groups(asks: Sequence[Ask]) -> Iterator[list[Ask]]:
    """Cuts rows into what is submitted at a time."""
    group: list[Ask] = []
    size = 0
    for ask in asks:
        if group and (len(group) >= GROUP_ROWS or size + ask.size > GROUP_CHARACTERS):
            yield group
            group, size = [], 0
        group.append(ask)
        size += ask.size
    if group:
        yield group
