"""Nobody starves: a lane that was passed over for too long has its first sequence served before all others, until that one ends."""

from pipeline.scheduling.sequence import Lane, Sequence, State
from pipeline.scheduling.step import Step

LOWER_LANES = (Lane.DEFAULT, Lane.FLEX)
PATIENCE_S = 10.0
"""How long a lane may be passed over: far above what targets are about, and short for a job that runs for hours."""


class Patience:
    """Picks whose turn it is by age alone: at most one sequence of each lower lane at a time.

    The first sequence of a lane waits for at most `patience_s` and one step after the lane was served last, whatever there is in
    the lanes above; only where priority sequences hold every row does it wait for the end of one.
    """

    def __init__(self, patience_s: float = PATIENCE_S):
        self._patience_s = patience_s
        self._served_s: dict[Lane, float] = {}
        self._aged: dict[Lane, Sequence] = {}

    def aged(self, step: Step) -> list[Sequence]:
        """Finds those whose turn it is by age, and puts them before everybody else."""
        for lane in LOWER_LANES:
            if lane in self._aged and self._aged[lane].state is State.FINISHED:
                del self._aged[lane]
                self._served_s[lane] = step.now_s
            if lane in self._aged or step.now_s - self._served_s.get(lane, step.now_s) <= self._patience_s:
                continue
            first = next((s for s in step.running if s.lane is lane), None) or step.waiting.oldest(lane)
            if first is not None and step.now_s - first.arrived_s > self._patience_s:  # it was there all the time
                step.put_first(first)
                self._aged[lane] = first
        return list(self._aged.values())

    def note(self, step: Step) -> None:
        """Notes which lanes a step serves; a lane that wants nothing is as good as served."""
        served = {s.lane for s in step.batch.decodes} | {chunk.sequence.lane for chunk in step.batch.prefills}
        for lane in LOWER_LANES:
            is_passed_over = lane not in served and (step.waiting.first(lane) is not None or any(s.lane is lane for s in step.running))
            if not is_passed_over or lane not in self._served_s:
                self._served_s[lane] = step.now_s
