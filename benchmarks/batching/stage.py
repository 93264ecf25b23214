"""Where contenders meet: one server, the same arrivals for all of a round, and what live requests and the backlog get alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmarks.batching.arrivals import Arrival, Bursts, Lengths, flex, live
from benchmarks.batching.outcome import Goal, Outcome
from benchmarks.batching.policies import SIZE, Size, adaptive
from benchmarks.batching.policies.base import Contender
from benchmarks.batching.serving import Run, Server, Span
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.step_model import StepModel

LIVE_SHARE = 0.2
"""Part of the output that live requests ask for on average; ten times as much while there is a burst, which is more than there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What each lane gets alone, and what was learned of step times meanwhile."""

    flex: Outcome
    live: Outcome
    per_s: float
    learned: StepModel

    def target_s(self, steps: float) -> float:
        """A target: what 95 of 100 live requests get alone, and so many steps of the backlog."""
        return self.live.ttft_s(0.95) + steps * self.flex.mean_step_s

    def goal(self, steps: float) -> Goal:
        """That, and a token every two steps of the backlog."""
        return Goal(ttft_s=self.target_s(steps), tpot_s=2 * self.flex.mean_step_s)

    def model(self) -> StepModel:
        """A copy of what was learned, as a worker finds it when it starts again."""
        return StepModel.from_json(self.learned.to_json())


@dataclass(kw_only=True)
class Stage:
    """A server, and what it is given."""

    server: Server
    lengths: Lengths
    span: Span
    bursts: Bursts
    size: Size = SIZE
    baseline_rounds: int = 3

    def one(self, contender: Contender, *, seed: int, per_s: float, has_backlog: bool = True) -> Outcome:
        """One run."""
        arrivals = self.arrivals(per_s, seed=seed) if per_s else []
        return Run(self.server, contender, self.span, arrivals, flex(self.lengths, seed) if has_backlog else None).go()

    def arrivals(self, per_s: float, *, seed: int) -> list[Arrival]:
        """Draws the live requests of a run."""
        bursts = Bursts(per_s=per_s, period_s=self.bursts.period_s, burst_s=self.bursts.burst_s)
        return live(self.lengths, bursts, self.span.end_s, seed)

    def round(self, contenders: Sequence[Contender], *, seed: int, per_s: float) -> list[Outcome]:
        """One run of each, in an order that turns from round to round."""
        turn = seed % len(contenders)
        order = [*range(turn, len(contenders)), *range(turn)]
        ran = {index: self.one(contenders[index], seed=seed, per_s=per_s) for index in order}
        return [ran[index] for index in range(len(contenders))]

    def compare(self, contenders: Sequence[Contender], *, rounds: int, per_s: float) -> tuple[list[Outcome], Outcome]:
        """All rounds; beside each contender's outcome that of the backlog alone, once in every round."""
        outcomes, alone = [Outcome() for _ in contenders], Outcome()
        reference = Contender(name="flex alone", policy=contenders[0].policy)
        for seed in range(1, rounds + 1):
            for total, outcome in zip(outcomes, self.round(contenders, seed=seed, per_s=per_s), strict=True):
                total.add(outcome)
            alone.add(self.one(reference, seed=seed, per_s=0.0))
        return outcomes, alone

    @cached_property
    def baseline(self) -> Baseline:
        """Measures the backlog alone, sets the rate of live requests by it, and measures those alone; once."""
        learned, seeds = StepModel(), range(1, self.baseline_rounds + 1)
        aimless = adaptive("without targets", learned, Targets(), self.size)
        self.one(aimless, seed=0, per_s=0.0)  # warms up, and learns
        backlog, alone = Outcome(), Outcome()
        for seed in seeds:
            backlog.add(self.one(aimless, seed=seed, per_s=0.0))
        per_s = self.rate(LIVE_SHARE, backlog)
        for seed in seeds:
            alone.add(self.one(aimless, seed=seed, per_s=per_s, has_backlog=False))
        self.one(aimless, seed=0, per_s=per_s)
        return Baseline(flex=backlog, live=alone, per_s=per_s, learned=learned)

    def rate(self, share: float, backlog: Outcome) -> float:
        """Live requests per second that ask for this part of what the backlog gets alone."""
        return share * backlog.tokens_per_s / self.lengths.output_mean
