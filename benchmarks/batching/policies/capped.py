"""Controllers of the batch size by latency. Theirs are batches of whole requests; here they decide anew each step, a better use of them."""

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.explanation import Closed
from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.sequence import Lane
from pipeline.scheduling.step import Step

LIVE = (Lane.PRIORITY, Lane.DEFAULT)


class Capped(FirstCome):
    """At most so many sequences in a step, live ones first. `limit` moves by what was observed."""

    def __init__(self, goal_s: float, most: int):
        self.goal_s = goal_s
        self.most = most
        self.limit = 1.0

    def fill(self, step: Step) -> Closed:
        """Fills up to the limit."""
        decoding = step.decoding()
        for sequence in [s for s in decoding if s.lane in LIVE]:
            self._has_room(step) and step.decode(sequence)
        self._prefill(step, LIVE)
        for sequence in [s for s in decoding if s.lane not in LIVE]:
            self._has_room(step) and step.decode(sequence)
        self._prefill(step, (Lane.FLEX,))
        return step.why() if self._has_room(step) else Closed.TARGET

    def _prefill(self, step: Step, lanes: tuple[Lane, ...]) -> None:
        for sequence in step.prefills(lanes):
            if not self._has_room(step) or not step.prefill(sequence, step.tokens_left):
                return

    def _has_room(self, step: Step) -> bool:
        return step.batch.sequences < int(self.limit)


class Aimd(Capped):
    """One more while the latency goal is met, a tenth less where it is not: Clipper (Crankshaw et al., NSDI 2017, section 4.3.1)."""

    def observe(self, batch: Batch, started_s: float, measured_s: float, *, is_whole: bool) -> None:  # noqa: ARG002 -- time alone counts
        """Moves the limit. A batch that was not full says nothing of a greater one."""
        if measured_s > self.goal_s:
            self.limit = max(self.limit * 0.9, 1.0)
        elif batch.sequences >= int(self.limit):
            self.limit = min(self.limit + 1.0, float(self.most))


class Regression(Capped):
    """The largest batch that a line through (batch size, latency) of late lets end in time: BentoML's dispatcher (`o_a`, `o_b` of its `Optimizer`).

    Its rule of when to wait for more is for a queue that runs empty; beside a backlog it never waits.
    """

    KEPT = 100

    def __init__(self, goal_s: float, most: int):
        super().__init__(goal_s, most)
        self._seen: list[tuple[int, float]] = []

    def observe(self, batch: Batch, started_s: float, measured_s: float, *, is_whole: bool) -> None:  # noqa: ARG002 -- likewise
        """Fits the line anew."""
        self._seen = [*self._seen[-self.KEPT + 1 :], (batch.sequences, measured_s)]
        count = len(self._seen)
        mean_n = sum(n for n, _ in self._seen) / count
        mean_s = sum(s for _, s in self._seen) / count
        spread = sum((n - mean_n) ** 2 for n, _ in self._seen)
        slope_s = max(sum((n - mean_n) * (s - mean_s) for n, s in self._seen) / spread, 1e-6) if spread else mean_s / mean_n
        self.limit = min(max((self.goal_s - mean_s) / slope_s + mean_n, 1.0), float(self.most))
