"""The open requests of a client, by name."""

import pytest

from pipeline.client import register
from pipeline.client.register import Register
from pipeline.client.slots import Slots
from pipeline.client.submission import Submission
from pipeline.client.transcript import Transcript
from schemas.errors import DuplicateRequest, EngineError


def enter(known: Register, name: str | None) -> Transcript:
    """Opens a request, under a name of the caller's or a random one."""
    submission = Submission.of({}, {"custom_id": name} if name else {})
    transcript = Transcript(submission.custom_id)
    known.enter(submission, transcript)
    return transcript


def test_names_that_the_caller_chose_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch):
    """The oldest is forgotten first; random names take no room."""
    monkeypatch.setattr(register, "REMEMBERED_NAMES", 2)
    known = Register(Slots(10))
    for name in ("a", None, "b", None, "c"):
        known.settle(enter(known, name).custom_id)
    assert known.is_empty()
    enter(known, "a")
    for name in ("a", "c"):
        with pytest.raises(DuplicateRequest):
            enter(known, name)


def test_a_failure_of_all_closes_each_once():
    """Everybody who waits hears of it, slots come back, and what closed before keeps its answer."""
    slots = Slots(2)
    known = Register(slots)
    transcripts = []
    for _ in range(2):
        slots.take()
        transcripts.append(enter(known, None))
    transcripts[0].fail(lambda: EngineError("first"))
    known.fail_all(lambda: EngineError("second"))
    for transcript, message in zip(transcripts, ("first", "second"), strict=True):
        with pytest.raises(EngineError, match=message):
            transcript.result()
    assert known.is_empty()
    assert [slots.take().done() for _ in range(3)] == [True, True, False]
