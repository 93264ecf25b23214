"""The reader's rule over a whole reply topic: many requests, shared names, results and rubbish."""

from pipeline.client import Reader
from pipeline.transport.base import Partition, Record
from schemas.codec import ResultLine, encode_event, encode_result
from schemas.events import Begin, Chunk, End, Error, Event, FinishReason, Reset, StreamHead, Usage
from schemas.record import Encoded

HEAD = StreamHead(id="cmpl-1", object="text_completion", created=0, model="m")


class Log:
    """One partition, written to in order."""

    def __init__(self, number: int = 0):
        self.partition = Partition("penstock.chunks", number)
        self.records: list[Record] = []

    def write(self, encoded: Encoded) -> int:
        """Appends a record and returns its offset."""
        offset = len(self.records)
        self.records.append(
            Record(partition=self.partition, offset=offset, timestamp_ms=7, key=encoded.key, value=encoded.value, headers=encoded.headers)
        )
        return offset

    def say(self, event: Event, name: str = "c", correlation_id: str | None = None) -> int:
        """Appends an event."""
        return self.write(encode_event(event, custom_id=name, correlation_id=correlation_id))

    def begin(self, name: str = "c", origin: str = "r/0/0", epoch: int = 0, *, resume: bool = False) -> int:
        """Appends a `begin` and returns the attempt."""
        return self.say(Begin(custom_id=name, model="m", origin=origin, created=0, epoch=epoch, resume=resume), name)

    def chunk(self, attempt: int, seq: int, text: str, name: str = "c") -> int:
        """Appends a chunk."""
        return self.say(Chunk(head=HEAD, attempt=attempt, seq=seq, text=text, token_ids=(1,), token_offset=seq), name)

    def end(self, attempt: int, seq: int, name: str = "c") -> int:
        """Appends an `end`."""
        usage = Usage(prompt_tokens=1, completion_tokens=seq)
        return self.say(End(head=HEAD, attempt=attempt, seq=seq, finish_reasons=(FinishReason.STOP,), usage=usage), name)

    def refusal(self, name: str = "c", correlation_id: str | None = None) -> int:
        """Appends an error without attempt."""
        return self.say(Error(code="invalid_request", type="t", message="m"), name, correlation_id)

    def accepted(self, reader: Reader | None = None) -> list[tuple[str | None, str]]:
        """Name and kind, or text, of what counts."""
        readings = (reader or Reader()).accepted(self.records)
        return [(r.custom_id, r.event.text if isinstance(r.event, Chunk) else type(r.event).__name__) for r in readings]


def line(origin: str, custom_id: str = "c") -> Encoded:
    """A result record."""
    return encode_result(ResultLine(id="b", custom_id=custom_id, status_code=200, request_id="q", body={}, origin=origin, attempt=0))


def test_interleaved_streams_are_judged_each_by_itself():
    """Events of many requests in one partition do not disturb one another."""
    log = Log()
    a, b = log.begin("a", "r/0/0"), log.begin("b", "r/0/1")
    log.chunk(b, 0, "b0", "b")
    log.chunk(a, 0, "a0", "a")
    log.chunk(b, 0, "again", "b")
    log.end(b, 1, "b")
    log.chunk(a, 1, "a1", "a")
    log.end(a, 2, "a")
    assert log.accepted() == [("b", "b0"), ("a", "a0"), ("b", "End"), ("a", "a1"), ("a", "End")]


def test_two_requests_of_one_name_are_told_apart_by_origin():
    """A second request under a used name is a stream of its own, before and after the first one ends."""
    log = Log()
    first, second = log.begin(origin="r/0/0"), log.begin(origin="r/0/9")
    log.chunk(first, 0, "first")
    log.chunk(second, 0, "second")
    log.end(first, 1)
    log.chunk(second, 1, "more")
    log.end(second, 2)
    assert log.accepted() == [("c", "first"), ("c", "second"), ("c", "End"), ("c", "more"), ("c", "End")]


def test_a_reading_says_where_and_what():
    """Every reading carries the record's place, the request's names and origin, and whether it counts."""
    log = Log(number=2)
    attempt = log.begin(origin="r/3/4")
    log.chunk(attempt, 0, "text")
    log.chunk(attempt, 0, "text")
    reader = Reader()
    begin, chunk, repeat = (reader.read(record) for record in log.records)
    assert begin is not None
    assert (begin.accepted, begin.origin, begin.custom_id, begin.correlation_id) == (False, "r/3/4", "c", "c")
    assert chunk is not None
    assert (chunk.accepted, chunk.origin, chunk.partition, chunk.offset, chunk.timestamp_ms) == (True, "r/3/4", log.partition, 1, 7)
    assert repeat is not None
    assert not repeat.accepted


def test_voids_are_accepted_and_stale_events_are_not():
    """A reset and a fresh attempt count, since they void; what names no current attempt does not."""
    log = Log()
    old = log.begin()
    log.chunk(old, 0, "void")
    log.say(Reset(attempt=old, reason="test"))
    log.chunk(old, 0, "void too")
    new = log.begin(epoch=1)
    log.chunk(old, 1, "stale")
    log.chunk(99, 0, "of nobody")
    log.chunk(new, 0, "kept")
    log.end(new, 1)
    assert log.accepted() == [("c", "void"), ("c", "Reset"), ("c", "void too"), ("c", "Begin"), ("c", "kept"), ("c", "End")]


def test_a_refusal_counts_once_per_name_and_requester():
    """A refusal is taken once and only where nothing began; another correlation id is another request."""
    log = Log()
    log.refusal("a")
    log.refusal("a")
    log.begin("b")
    log.refusal("b")
    log.refusal("b", correlation_id="other")
    assert log.accepted() == [("a", "Error"), ("b", "Error")]


def test_the_first_result_of_an_origin_counts():
    """Later lines for the same origin repeat it; another origin under the same name is another result."""
    log = Log()
    for origin in ("r/0/0", "r/0/0", "r/0/1"):
        log.write(line(origin))
    readings = [reading for record in log.records if (reading := Reader().read(record))]
    assert len(readings) == 3
    assert log.accepted() == [("c", "ResultLine"), ("c", "ResultLine")]


def test_partitions_are_separate():
    """The same name in two partitions is two requests."""
    reader = Reader()
    for log in (Log(0), Log(1)):
        log.end(log.begin(), 0)
        assert log.accepted(reader) == [("c", "End")]


def test_rubbish_is_passed_over():
    """Records of no known form are no readings and disturb nothing."""
    log = Log()
    attempt = log.begin()
    for encoded in (
        Encoded(key=None, value=None),
        Encoded(key=b"c", value=b"{", headers=(("event", b"chunk"),)),
        Encoded(key=b"\xff", value=b"{}", headers=(("event", b"reset"), ("attempt", b"0"))),
        Encoded(key=b"c", value=b"{}", headers=(("event", b"explode"),)),
    ):
        assert Reader().read(log.records[log.write(encoded)]) is None
    log.end(attempt, 0)
    assert log.accepted() == [("c", "End")]


def test_memory_is_bounded():
    """Past the bound the request that was silent longest is forgotten, and the others are kept."""
    log = Log()
    attempts = {name: log.begin(name, f"r/0/{name}") for name in "abc"}
    log.chunk(attempts["a"], 0, "a0", "a")
    log.begin("d", "r/0/d")
    for name in "abc":
        log.end(attempts[name], int(name == "a"), name)
    assert log.accepted(Reader(remembered=3)) == [("a", "a0"), ("a", "End"), ("c", "End")]
