"""The reader's rule, against a model of everything that may write to a reply partition."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.delivery.fence import Fence
from schemas.events import Begin, Chunk, End, Error, Event, FinishReason, Reset, StreamHead, Usage

HEAD = StreamHead(id="cmpl-1", object="text_completion", created=0, model="m")


def begin(epoch: int, *, resume: bool = False) -> Begin:
    """A `begin`; the offset that it is read at is its attempt."""
    return Begin(custom_id="c", model="m", origin="requests/0/0", created=0, epoch=epoch, resume=resume)


def chunk(attempt: int, seq: int, *token_ids: int, offset: int = 0) -> Chunk:
    """A `chunk` with these tokens."""
    return Chunk(head=HEAD, attempt=attempt, seq=seq, text="", token_ids=token_ids, token_offset=offset)


def end(attempt: int, seq: int) -> End:
    """An `end`."""
    return End(head=HEAD, attempt=attempt, seq=seq, finish_reasons=(FinishReason.STOP,), usage=Usage(prompt_tokens=1, completion_tokens=seq))


def error(attempt: int | None = None, seq: int | None = None) -> Error:
    """An `error`; without an attempt it is a refusal."""
    return Error(code="engine_error", type="server_error", message="", attempt=attempt, seq=seq)


def verdicts(*log: Event) -> list[bool]:
    """What a fresh fence says to records at offsets 0, 1, 2 and so on."""
    fence = Fence()
    return [fence.admits(event, offset) for offset, event in enumerate(log)]


@dataclass
class Reader:
    """What the one who reads the partition has in hand: a fence, and the tokens that it admitted."""

    fence: Fence = field(default_factory=Fence)
    tokens: list[int] = field(default_factory=list)
    terminals: list[Event] = field(default_factory=list)
    position: int = 0

    def read(self, log: list[Event]) -> None:
        """Reads on to the end of the log."""
        for offset, event in enumerate(log[self.position :], self.position):
            if self.fence.admits(event, offset):
                self._take(event)
        self.position = len(log)

    def _take(self, event: Event) -> None:
        match event:
            case Begin() | Reset():
                self.tokens.clear()
            case Chunk():
                assert event.token_offset == len(self.tokens)
                self.tokens.extend(event.token_ids)
            case End() | Error():
                self.terminals.append(event)


@dataclass
class Writer:
    """One owner's attempt. It knows nothing of other writers but what the log held when its own `begin` landed."""

    epoch: int
    resume: bool
    reference: tuple[int, ...]
    attempt: int | None = None
    seq: int = 0
    written: list[Event] = field(default_factory=list)
    sent_tokens: int = 0
    ended: bool = False

    def open(self, log: list[Event]) -> None:
        """Writes `begin` and, to resume, learns what readers had accepted by then."""
        log.append(begin(self.epoch, resume=self.resume))
        self.attempt = len(log) - 1
        if self.resume:
            settled = Reader()
            settled.read(log)
            self.seq, self.sent_tokens, self.ended = settled.fence.next_seq, len(settled.tokens), settled.fence.closed

    def write(self, log: list[Event], token_count: int) -> None:
        """Writes the next chunk, or the end when nothing is left."""
        assert self.attempt is not None
        if self.ended:
            return
        token_ids = self.reference[self.sent_tokens : self.sent_tokens + token_count]
        event = chunk(self.attempt, self.seq, *token_ids, offset=self.sent_tokens) if token_ids else end(self.attempt, self.seq)
        self.seq += 1
        self.sent_tokens += len(token_ids)
        self.ended = not token_ids
        self.written.append(event)
        log.append(event)

    def repeat(self, log: list[Event], last: int) -> None:
        """Sends its last events once more, as after a failed acknowledgement."""
        log.extend(self.written[-last:])

    def restart(self, log: list[Event]) -> None:
        """Gives up what it said and starts over, as where exact continuation is impossible."""
        assert self.attempt is not None
        if not self.ended:
            log.append(Reset(attempt=self.attempt, reason="test"))
            self.seq = self.sent_tokens = 0
            self.written.clear()


@dataclass
class History:
    """A reply partition as crashes, takeovers and zombies left it; the last owner finished its work."""

    reference: tuple[int, ...]
    log: list[Event] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)

    def take_over(self, epoch: int, *, resume: bool) -> Writer:
        """Lets one more writer begin."""
        writer = Writer(epoch, resume, self.reference)
        self.writers.append(writer)
        writer.open(self.log)
        return writer


def disturb(draw: st.DrawFn, history: History, epoch: int) -> None:
    """Lets any writer so far do any one thing, and owners of an epoch up to `epoch` begin late on what they once fetched."""
    writer = draw(st.sampled_from(history.writers))
    match draw(st.sampled_from(["write", "write", "write", "repeat", "restart", "begin late"])):
        case "write":
            writer.write(history.log, draw(st.integers(1, 4)))
        case "repeat":
            writer.repeat(history.log, draw(st.integers(1, 3)))
        case "restart":
            writer.restart(history.log)
        case "begin late":
            history.take_over(draw(st.integers(0, epoch)), resume=draw(st.booleans()))


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Owners come one after the other, each with a higher epoch; the earlier ones may go on writing at any time.

    The last owner finishes, while zombies still write and begin, and may itself begin again under its epoch.
    """
    history = History(reference=tuple(draw(st.lists(st.integers(0, 9), max_size=12))))
    owners = draw(st.integers(1, 4))
    for epoch in range(owners):
        history.take_over(epoch, resume=draw(st.booleans()))
        for _ in range(draw(st.integers(0, 12))):
            disturb(draw, history, epoch)
    finisher = history.take_over(owners, resume=draw(st.booleans()))
    while not finisher.ended:
        finisher.write(history.log, draw(st.integers(1, 4)))
        zombies = draw(st.integers(0, 2))
        for _ in range(zombies):
            disturb(draw, history, owners - 1)
        if draw(st.integers(0, 5)) == 0:
            finisher = history.take_over(owners, resume=True)
    for writer in history.writers:
        writer.repeat(history.log, draw(st.integers(0, 2)))
        writer.write(history.log, 1)
    return history


@settings(max_examples=300, deadline=None)
@given(history=histories())
def test_a_reader_sees_every_token_once_whatever_crashed(history: History):
    """For any interleaving of attempts the admitted tokens are the reference's, in order, and one terminal closes them."""
    reader = Reader()
    reader.read(history.log)
    assert tuple(reader.tokens) == history.reference
    assert len(reader.terminals) == 1
    assert isinstance(reader.terminals[0], End)
    assert reader.fence.closed


@settings(deadline=None)
@given(history=histories())
def test_at_every_moment_a_reader_holds_a_prefix_of_the_answer(history: History):
    """Nothing that a superseded attempt wrote is ever in between."""
    reader = Reader()
    for length in range(1, len(history.log) + 1):
        reader.read(history.log[:length])
        assert tuple(reader.tokens) == history.reference[: len(reader.tokens)]


@settings(deadline=None)
@given(history=histories(), cut=st.integers(0, 200))
def test_reading_again_from_the_start_gives_the_same(history: History, cut: int):
    """The rule depends on the log alone: a reader that reads in two goes agrees with one that reads at once."""
    at_once, in_two = Reader(), Reader()
    at_once.read(history.log)
    in_two.read(history.log[:cut])
    in_two.read(history.log)
    assert (in_two.tokens, in_two.terminals, in_two.fence) == (at_once.tokens, at_once.terminals, at_once.fence)


def test_an_event_counts_only_in_its_turn():
    """A repeat, a gap and another attempt's event are passed over."""
    assert verdicts(begin(0), chunk(0, 0, 1), chunk(0, 0, 1), chunk(0, 2, 3), chunk(7, 1, 2), chunk(0, 1, 2)) == [
        *(False, True, False, False, False),
        True,
    ]


def test_nothing_counts_before_a_begin():
    """A reader that joins late waits for an attempt of which it has seen the beginning."""
    assert verdicts(chunk(0, 0, 1), end(0, 1), Reset(attempt=0, reason="")) == [False, False, False]


def test_a_resumed_attempt_goes_on_where_the_last_one_stopped():
    """The next sequence number stays, and the old attempt is heard no more."""
    assert verdicts(begin(0), chunk(0, 0, 1), begin(1, resume=True), chunk(0, 1, 9), chunk(2, 1, 2), end(2, 2)) == [
        *(False, True, False, False, True),
        True,
    ]


def test_a_fresh_attempt_voids_what_was_accepted():
    """A `begin` without resume counts as a reset where something was accepted, and is silent where nothing was."""
    assert verdicts(begin(0), begin(1), chunk(1, 0, 1), begin(2), chunk(3, 0, 1)) == [False, False, True, True, True]


def test_a_zombies_late_begin_is_passed_over():
    """A lower epoch never becomes the current attempt, whatever it writes afterwards."""
    assert verdicts(begin(5), chunk(0, 0, 1), begin(4), chunk(2, 0, 9), end(2, 0), chunk(0, 1, 2)) == [False, True, False, False, False, True]


@pytest.mark.parametrize("terminal", [end, error])
def test_the_first_terminal_closes_the_stream(terminal: Callable[[int, int], Event]):
    """Whatever follows is ignored: repeats, resets, new attempts and refusals."""
    log = [begin(0), chunk(0, 0, 1), terminal(0, 1), terminal(0, 1), Reset(attempt=0, reason=""), begin(9), end(5, 0), error()]
    assert verdicts(*log) == [False, True, True, *[False] * 5]


def test_a_refusal_counts_once_and_only_before_anything_began():
    """An error without attempt is a refusal; a worker that lost the request may still write one."""
    assert verdicts(error(), error(), begin(0)) == [True, False, False]
    assert verdicts(begin(0), error(), error(0, 0)) == [False, False, True]


def test_a_reset_voids_and_the_count_starts_again():
    """After a reset of the current attempt its next event is number 0; another attempt's reset means nothing."""
    fence = Fence()
    log = [begin(0), chunk(0, 0, 1), Reset(attempt=3, reason=""), Reset(attempt=0, reason=""), chunk(0, 1, 2), chunk(0, 0, 1)]
    assert [fence.admits(event, offset) for offset, event in enumerate(log)] == [False, True, False, True, False, True]
    assert (fence.attempt, fence.epoch, fence.next_seq, fence.closed) == (0, 0, 1, False)
