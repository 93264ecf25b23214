"""The policy that serves: as large a step as the targets allow, live work first, flex work in the room that is left."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.explanation import Closed
from pipeline.scheduling.filling import LEAST_CHUNK_TOKENS, Filling
from pipeline.scheduling.forecast import Forecast
from pipeline.scheduling.lengths import Lengths
from pipeline.scheduling.pace import Pace, Targets
from pipeline.scheduling.patience import PATIENCE_S, Patience
from pipeline.scheduling.sequence import Lane, Sequence, State
from pipeline.scheduling.step import Step
from pipeline.scheduling.step_model import StepModel
from pipeline.scheduling.transit import Transit
from pipeline.scheduling.triage import HORIZON_S, LIVE, Triage
from pipeline.scheduling.turns import Turns
from pipeline.scheduling.waiting import NO_WEIGHTS

NO_TARGETS = Targets()
FLEX_SHARE = 0.9
"""A tenth of the KV cache is kept for live work, so that it begins without taking blocks away."""
AGED_SHARE = 4
"""Who is served for its age alone gets at most a quarter of a step's tokens for its prompt."""
LEAST_WORK = 2.0
"""Flex work alone may always fill a step of twice its fixed part: below that most of the time is lost, and little is gained."""


class _Begun(NamedTuple):
    """A live sequence that waits for its first token."""

    seen_s: float
    """When a plan first saw it."""
    flex_s: float
    """The time that flex work had taken by then."""
    is_alone: bool
    """No other live sequence was there."""


class Adaptive:
    """Order: live decodes, prompts of live work by slack, flex decodes, flex prompts, as long as the predicted time fits.

    Without targets nothing limits a step but its token budget. With them, live work that waits gets all the room that its slack
    leaves; flex work fills a step up to the earliest slack in it, to the time between tokens that running streams want, and to what
    a live request can bear that arrives in its middle.

    Where prompts and streams hinder each other more than a second step costs, they take turns (see `Turns`).

    Args:
        model: What is known of step times; goes on learning.
        targets: What live requests want.
        weights: Tenants' shares of a lane under contention; 1 where one is not named.
        patience_s: How long a lane may be passed over.
        transit: How long live requests take to the engine and from it, where somebody observes that.
    """

    def __init__(
        self,
        model: StepModel,
        targets: Targets = NO_TARGETS,
        *,
        weights: Mapping[str, float] = NO_WEIGHTS,
        patience_s: float = PATIENCE_S,
        transit: Transit | None = None,
    ):
        self.model = model
        self.weights = weights
        self.flex_share = FLEX_SHARE
        self._targets = targets
        self._pace = Pace(targets, Transit() if transit is None else transit)
        self._patience = Patience(patience_s)
        self._triage = Triage(model, self._pace, weights)
        self._turns = Turns(model)
        self._lengths = Lengths()
        self._forecast = Forecast(model)
        self._live_s = 0.0
        """What the live part of the step would take alone, as predicted."""
        self._flex_s = 0.0
        """Time that flex work has taken since the start."""
        self._unseen: list[Sequence] = []
        self._begun: dict[Sequence, _Begun] = {}
        """Live sequences without a token yet."""
        self._streams: dict[Sequence, float] = {}
        """Live sequences with a token, and the time that flex work had taken by their first."""
        self._firsts: list[Sequence] = []

    def expected_tokens(self, sequence: Sequence) -> int:
        """Goes by what outputs of the lane came to."""
        return self._lengths.expected_tokens(sequence)

    def arrive(self, sequence: Sequence) -> float:
        """Learns of a sequence, which wants to begin within its target, or before its deadline where that is earlier."""
        is_live = sequence.lane is not Lane.FLEX
        if is_live:
            self._unseen.append(sequence)
        target_s = self._targets.ttft_s if is_live else None
        begins_s = sequence.arrived_s + (HORIZON_S if target_s is None else target_s)
        return begins_s if sequence.deadline_s is None else min(begins_s, sequence.deadline_s)

    def fill(self, step: Step) -> Closed:
        """Fills a step."""
        self._pace.pass_time(step.now_s)
        if self._unseen:
            is_alone = len(self._unseen) == 1 and not self._begun and not self._streams
            self._begun.update(dict.fromkeys(self._unseen, _Begun(step.now_s, self._flex_s, is_alone)))
            self._unseen.clear()
        self._triage.defer_late(step)
        self._forecast = Forecast(self.model)
        filling = Filling(step, self._forecast)
        aged = self._patience.aged(step)
        step.displace()
        decoding = step.decoding()
        first_flex = bisect_left(decoding, int(Lane.FLEX), key=_ranked_lane)
        live, flex = decoding[:first_flex], decoding[first_flex:]
        filling.decode(live)
        for sequence in aged:
            _serve_aged(filling, sequence)
        is_streams_turn = self._turns.is_streams and bool(decoding)
        prefill_live = self._prefill_urgent if is_streams_turn else self._prefill_live
        limit_s = prefill_live(filling, self._plan_for(self._pace.stream_limit_s) if live else math.inf)
        live_chunks = len(step.batch.prefills)
        self._live_s = self._forecast.seconds
        flex_limit_s = min(self._pace.arrival_limit_s, self._pace.flex_limit_s if live else math.inf)
        limit_s = min(limit_s, max(self._plan_for(flex_limit_s), LEAST_WORK * self.model.fixed_s))
        filling.decode(flex, limit_s)
        for sequence in step.prefills((Lane.FLEX,)):
            if is_streams_turn:
                filling.is_parted = True
                break
            filling.prefill(sequence, limit_s)
        if self._turns.parts(self._forecast):
            self._part(filling, live_chunks)
        self._patience.note(step)
        self._firsts = [s for s in self._begun if s.served_step == step.number]
        if filling.is_parted:
            return Closed.MIXING
        return Closed.TARGET if filling.is_cut and step.tokens_left else step.why()

    def predicted_s(self) -> float | None:
        """Tells what the model predicted."""
        return self._forecast.seconds if self.model.known else None

    def error_p95(self) -> float | None:
        """Tells how wrong the model has been."""
        return self.model.error_p95

    def observe(self, batch: Batch, started_s: float, measured_s: float, *, is_whole: bool) -> None:  # noqa: ARG002 -- the forecast knows what was in it
        """Learns from a step, and from the live sequences that got their first token in it."""
        if is_whole:
            self.model.observe(self._forecast.load, measured_s)
        if predicted_s := self._forecast.seconds:
            self._flex_s += measured_s * (1.0 - self._live_s / predicted_s)
        for sequence in self._firsts:
            if not sequence.output_ids:
                continue  # more of its prompt is to come
            ended_s = sequence.first_token_s = started_s + measured_s
            begun = self._begun.pop(sequence)
            self._streams[sequence] = self._flex_s
            needed_s = ended_s - begun.seen_s - (self._flex_s - begun.flex_s)
            self._pace.observe_first_token(ended_s - sequence.arrived_s, needed_s, alone=begun.is_alone)

    def end(self, sequence: Sequence, now_s: float) -> None:
        """Learns how long an output was, and how far apart the tokens of a live one."""
        if not sequence.output_ids:
            self._begun.pop(sequence, None)
        if sequence.state is State.RUNNING:
            self._lengths.observe(sequence)
        gaps = len(sequence.output_ids) - 2  # between its first token and the last one before this step
        flex_s = self._streams.pop(sequence, None)
        if gaps > 0 and flex_s is not None and sequence.first_token_s is not None:
            streamed_s = now_s - sequence.first_token_s
            self._pace.observe_stream(streamed_s / gaps, (streamed_s - (self._flex_s - flex_s)) / gaps)

    def _plan_for(self, limit_s: float) -> float:
        """Tells what a step may be predicted to take so that it takes no longer than a limit in 95 of 100 cases."""
        return limit_s / (1.0 + self.model.margin)

    def _prefill_live(self, filling: Filling, stream_limit_s: float) -> float:
        """Lets in prompts of live work, the most urgent first; returns how long the step may become for flex work's sake.

        The first may take what it needs. Who can still be on time limits the step for those after it; who can't limits flex work
        alone, which then gets nothing.
        """
        forecast, limit_s, flex_limit_s = filling.forecast, stream_limit_s, stream_limit_s
        is_first = True
        for sequence in filling.step.prefills(LIVE):
            is_put = filling.prefill(sequence, limit_s) or (is_first and filling.put(sequence, LEAST_CHUNK_TOKENS))
            if not is_put:
                return forecast.seconds
            is_first = False
            slack_s = self._plan_for(self._pace.slack_s(sequence.arrived_s))
            if slack_s >= forecast.seconds:
                limit_s = min(limit_s, slack_s)
            flex_limit_s = min(flex_limit_s, max(slack_s, forecast.seconds))
        return flex_limit_s

    def _prefill_urgent(self, filling: Filling, stream_limit_s: float) -> float:
        """In a step of streams, lets in only prompts of live work that can be on time in it and not after it."""
        forecast = filling.forecast
        for sequence in filling.step.prefills(LIVE):
            slack_s = self._plan_for(self._pace.slack_s(sequence.arrived_s))
            if slack_s >= forecast.seconds + forecast.alone_s(sequence) or not filling.prefill(sequence, min(slack_s, stream_limit_s)):
                filling.is_parted = True
                break
            stream_limit_s = min(stream_limit_s, slack_s)
        return stream_limit_s

    def _part(self, filling: Filling, live_chunks: int) -> None:
        """Takes the streams out of a step; where no live prompt is left in it, they wait for flex work alone."""
        filling.is_parted = True
        filling.step.withdraw_decodes()
        chunks = filling.step.batch.prefills
        self._forecast = Forecast(self.model)
        for chunk in chunks[:live_chunks]:
            self._forecast.add_chunk(chunk.start, chunk.count)
        self._live_s = self._forecast.seconds if live_chunks else 0.0
        for chunk in chunks[live_chunks:]:
            self._forecast.add_chunk(chunk.start, chunk.count)


def _ranked_lane(sequence: Sequence) -> int:
    return sequence.rank[0]


def _serve_aged(filling: Filling, sequence: Sequence) -> None:
    """Serves a sequence that is not yet in the step, a small part of its prompt at a time."""
    step = filling.step
    if sequence.served_step == step.number or (sequence.state is State.WAITING and not step.admits(sequence)):
        return
    filling.put(sequence, max(step.tokens_left // AGED_SHARE, 1))
