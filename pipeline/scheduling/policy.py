"""What decides: each step a policy fills the batch, and the scheduler sees to the rest.

A known controller is a policy of a few lines over the same engine: one that knows no lanes is simply given everything in one.
"""

from collections.abc import Mapping
from typing import Protocol

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.explanation import Closed
from pipeline.scheduling.sequence import Sequence
from pipeline.scheduling.step import Step
from pipeline.scheduling.waiting import NO_WEIGHTS


class Policy(Protocol):
    """Decides what each step computes. It belongs to one scheduler, and is told the time.

    Attributes:
        weights: Tenants' shares of a lane under contention; 1 where one is not named.
        flex_share: The part of the KV cache that flex sequences may reserve.
    """

    weights: Mapping[str, float]
    flex_share: float

    def expected_tokens(self, sequence: Sequence) -> int:
        """Tells how many tokens a sequence will probably have in the end: room is kept for them when it is let in."""
        ...

    def arrive(self, sequence: Sequence) -> float:
        """Learns of a new sequence; tells by when it wants to begin. Within a lane and tenant the earliest goes first."""
        ...

    def fill(self, step: Step) -> Closed:
        """Puts into a step what it shall compute and tells why no more."""
        ...

    def predicted_s(self) -> float | None:
        """Tells how long the step that was filled last should take; None where the policy can't."""
        ...

    def error_p95(self) -> float | None:
        """Tells by what share of the measured time 95 of 100 predictions of late were wrong at most; None where that is not known."""
        ...

    def observe(self, batch: Batch, started_s: float, measured_s: float, *, is_whole: bool) -> None:
        """Learns how long a batch took. Where not `is_whole`, parts of it failed and were tried again."""
        ...

    def end(self, sequence: Sequence, now_s: float) -> None:
        """Learns that a sequence ended, or was cancelled."""
        ...


class FirstCome:
    """Lane by lane, first come, first served, as much as the token budget takes: every running stream first, then prompts.

    The scheme is that of Sarathi-Serve: chunks of prefill fill up what the decodes leave, so that a long prompt never holds up a stream.
    """

    weights: Mapping[str, float] = NO_WEIGHTS
    flex_share: float = 1.0

    def expected_tokens(self, sequence: Sequence) -> int:
        """Expects one more token: who turns out to be too many gives way."""
        return sequence.tokens + 1

    def arrive(self, sequence: Sequence) -> float:
        """Keeps the order of arrival."""
        return sequence.arrived_s

    def fill(self, step: Step) -> Closed:
        """Takes all that runs, then all that waits."""
        step.displace()
        for sequence in step.decoding():
            step.decode(sequence)
        for sequence in step.prefills():
            step.prefill(sequence, step.tokens_left)
        return step.why()

    def predicted_s(self) -> float | None:
        """Predicts nothing."""
        return None

    def error_p95(self) -> float | None:
        """Is wrong about nothing."""
        return None

    def observe(self, batch: Batch, started_s: float, measured_s: float, *, is_whole: bool) -> None:
        """Learns nothing."""

    def end(self, sequence: Sequence, now_s: float) -> None:
        """Learns nothing."""
