"""When not all live requests can be on time, as many as possible are: the others wait behind them.

Served by due time alone, a burst that is too much makes everybody a little late. So each step begins by asking who can be on time
if the steps to come are filled as predicted, and defers the fewest. Who is deferred stays behind those who can be on time for as
long as a request without a target would, and is served at once where none of them waits.
"""

from collections.abc import Iterator, Mapping

from pipeline.scheduling.forecast import Forecast
from pipeline.scheduling.lateness import Candidate, Share, late
from pipeline.scheduling.pace import Pace
from pipeline.scheduling.sequence import Group, Lane, Sequence
from pipeline.scheduling.step import Step
from pipeline.scheduling.step_model import StepModel

LIVE = (Lane.PRIORITY, Lane.DEFAULT)
HORIZON_S = 10.0
"""By when, after its arrival, a request without a target or an earlier deadline wants to begin: later ones overtake it for no longer."""


class Triage:
    """Decides who is deferred.

    Args:
        model: What steps take.
        pace: When live requests are due.
        weights: Tenants' shares of a lane; 1 where one is not named.
    """

    def __init__(self, model: StepModel, pace: Pace, weights: Mapping[str, float]):
        self._model = model
        self._pace = pace
        self._weights = weights

    def defer_late(self, step: Step) -> None:
        """Defers those who can't be on time, or not without making more of the others late."""
        if not self._pace.has_due_times:
            return
        begins_s, step_s = step.now_s, 0.0
        for lane in LIVE:
            hopeful = {tenant: those for tenant, queue in step.waiting.queues(lane) if (those := [s for s in queue if _is_hopeful(s)])}
            if not hopeful:
                continue
            if not step_s:
                begins_s, step_s = self._live_steps(step)
            shares = [Share(self._weights.get(tenant, 1.0), list(self._candidates(step, those))) for tenant, those in hopeful.items()]
            given_up, begins_s = late(shares, begins_s, step_s)
            for sequence in given_up:
                step.waiting.defer(sequence, sequence.arrived_s + HORIZON_S)

    def _live_steps(self, step: Step) -> tuple[float, float]:
        """Tells when the live prompts that were begun can be done, and what the live streams make each step take."""
        forecast = Forecast(self._model)
        live = [s for s in step.running if s.lane is not Lane.FLEX]
        streams = [s.computed_tokens for s in live if s.pending_tokens == 1]
        begun_s = sum([forecast.chunk_s(s.computed_tokens, s.pending_tokens) for s in live if s.pending_tokens > 1])
        return step.now_s + begun_s, forecast.seconds + forecast.decodes_s(len(streams), sum(streams))

    def _candidates(self, step: Step, sequences: list[Sequence]) -> Iterator[Candidate]:
        """Tells what each of these adds to a step: the first choice of a request its prompt, the others next to nothing."""
        forecast = Forecast(self._model)
        group: Group | None = None
        for sequence in sequences:
            is_shared = sequence.group is not None and sequence.group is group
            group = sequence.group
            left = 1 if is_shared else step.left_of(sequence)
            yield Candidate(self._pace.due_s(sequence.arrived_s), forecast.chunk_s(sequence.tokens - left, left), sequence)


def _is_hopeful(sequence: Sequence) -> bool:
    return sequence.urgency[0] < sequence.arrived_s + HORIZON_S
