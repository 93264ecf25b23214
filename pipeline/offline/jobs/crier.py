"""Who is called for what of a job: whatever is next in it, whatever nobody answered, and to tell of its end.

A job goes from its plan over its shards, `window` of them at a time, to its end. Whoever ends a shard calls out the next one of
the window; whoever reconciles calls out again what nobody answered.
"""

from collections.abc import Sequence
from itertools import islice

import structlog

from pipeline.offline.confinement import Confinement
from pipeline.offline.flags import raise_flag, read_flag
from pipeline.offline.jobs.errands import Caller, Errand, Kind, Patience, make_board
from pipeline.offline.jobs.opening import open_planned
from pipeline.offline.jobs.registry import Home
from pipeline.offline.scoring import Halt

log = structlog.get_logger(__name__)


class Crier:
    """Calls errands out.

    Args:
        caller: Wakes others.
        window: Shards of one job that are called out at a time.
        patience: How long calls may go unanswered.
        within: What jobs may read and write; None for whatever this process can.
    """

    def __init__(self, caller: Caller, *, window: int, patience: Patience, within: Confinement | None):
        self._caller = caller
        self._window = window
        self._patience = patience
        self._within = within

    def is_idle(self) -> bool:
        """Whether no message waits for somebody to score."""
        return self._caller.is_idle()

    def advance(self, home: Home) -> None:
        """Calls out what is next in a job, if it was not called out before."""
        board = make_board(home.errands)
        for errand in self._due(home):
            if board.post(errand):
                self._caller.call(errand)

    def call_again(self, home: Home, *, is_idle: bool) -> None:
        """Calls out again what nobody answered; of a job that has ended, to tell of it, if that is still to be done."""
        if not home.has_ended:
            self._repeat(home, self._due(home), is_idle=is_idle)
        elif home.owes_notice:
            self._repeat(home, [Errand(Kind.NOTIFY, home.id)], is_idle=True)  # it waits behind no shard

    def call_to_notify(self, home: Home) -> None:
        """Calls somebody to tell the outside of a job's end, if it is to be told."""
        if home.owes_notice and make_board(home.errands).post(errand := Errand(Kind.NOTIFY, home.id)):
            self._caller.call(errand)

    def _repeat(self, home: Home, errands: Sequence[Errand], *, is_idle: bool) -> None:
        board = make_board(home.errands)
        for errand in errands:
            if board.post_again(errand, self._patience, is_idle=is_idle):
                log.info("called", job=errand.job, errand=errand.name)
                self._caller.call(errand)

    def _due(self, home: Home) -> list[Errand]:
        """What there is to do for a job now, in as far as it may be done side by side."""
        if not home.folder.plan_file.exists():
            return [Errand(Kind.PLAN, home.id)]
        wish = home.asked()
        if wish is not None and read_flag(home.folder) is None:
            raise_flag(home.folder, wish)  # it was asked before there was a plan: those who score look there
        if wish is Halt.CANCELLED:
            return [Errand(Kind.FINALISE, home.id)]
        missing = islice(open_planned(home, self._within).commits_missing(), self._window)
        due = [Errand(Kind.SCORE, home.id, shard.number) for shard in missing]
        if wish is Halt.PAUSED and due:
            return []
        return due or [Errand(Kind.FINALISE, home.id)]
