"""What is done about each errand. Every verb may come twice, late or never: it looks at the job's folder first, and does what is left."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import structlog

from pipeline.offline.addresses import store_of
from pipeline.offline.confinement import Confinement
from pipeline.offline.finalising import finalise
from pipeline.offline.flags import watch
from pipeline.offline.flight.address import WorkerAway
from pipeline.offline.flight.client import WorkerDied
from pipeline.offline.jobs.crier import Crier
from pipeline.offline.jobs.errands import Board, Caller, Errand, Kind, Patience, make_board
from pipeline.offline.jobs.opening import open_planned
from pipeline.offline.jobs.registry import Home, Registry
from pipeline.offline.jobs.tally import encode_progress
from pipeline.offline.ledger import Ledger
from pipeline.offline.plan import Job, plan
from pipeline.offline.reaching import is_outage, reaching
from pipeline.offline.refusals import JobBusy, JobRefused, StoreAway
from pipeline.offline.scorer import Scorer
from pipeline.offline.scoring import Halt, Scoring
from pipeline.offline.turnstile import Turnstile
from schemas.job import ShardPlan
from schemas.outcome import JobState

log = structlog.get_logger(__name__)

Doors = Callable[[Job], AbstractContextManager[Scorer]]
"""Opens what computes the rows of a job.

Raises:
    WorkerAway: Nobody answers there, for longer than one waits.
    JobRefused: The worker there does not do this job.
"""


class Driver:
    """Works on jobs.

    Args:
        registry: Where they are.
        caller: Wakes others.
        doors: Opens what computes.
        turnstile: A new way to the worker behind the door, for each shard.
        window: Shards of one job that are called out at a time.
        patience: How long calls may go unanswered.
        is_stopping: Whether this process is asked to leave.
        tell: Tells the outside that a job is over, or notes when to try again.
        within: What jobs may read and write; None for whatever this process can.
    """

    def __init__(
        self,
        registry: Registry,
        caller: Caller,
        *,
        doors: Doors,
        turnstile: Callable[[], Turnstile],
        window: int,
        patience: Patience,
        is_stopping: Callable[[], bool],
        tell: Callable[[Home], None],
        within: Confinement | None = None,
    ):
        self._registry = registry
        self._crier = Crier(caller, window=window, patience=patience, within=within)
        self._doors = doors
        self._turnstile = turnstile
        self._is_stopping = is_stopping
        self._tell = tell
        self._within = within

    def plan(self, job: str) -> None:
        """Plans a job and calls out its first shards."""
        home = self._find(job)
        if home is None:
            return
        board, errand = make_board(home.errands), Errand(Kind.PLAN, job)
        with board.attend(errand) as is_mine:
            if not is_mine or home.has_ended:
                return
            try:
                self._plan(home)
            except StoreAway as error:
                self._wait(home, errand, error)
            except JobRefused as error:
                self._fail(home, error)

    def score(self, job: str, shard: int) -> None:
        """Computes one shard and calls out the next one."""
        home = self._find(job)
        if home is None:
            return
        board, errand = make_board(home.errands), Errand(Kind.SCORE, job, shard)
        with board.attend(errand) as is_mine:
            if not is_mine or home.has_ended:
                return
            try:
                self._score(home, board, errand)
            except JobRefused as error:
                self._fail(home, error)
                return
            except OSError as error:
                self._wait_or_raise(home, errand, error)
                return
        self._crier.advance(home)

    def finalise(self, job: str) -> None:
        """Ends a job whose shards are done, or that was cancelled and is left by all."""
        home = self._find(job)
        if home is None:
            return
        board, errand = make_board(home.errands), Errand(Kind.FINALISE, job)
        with board.attend(errand) as is_mine:
            if not is_mine or home.is_over:
                return
            try:
                self._finalise(home, board, errand)
            except JobBusy:
                return
            except JobRefused as error:
                self._fail(home, error)
            except OSError as error:
                self._wait_or_raise(home, errand, error)

    def notify(self, job: str) -> None:
        """Tells the outside of the end of a job."""
        home = self._registry.find(job)
        with make_board(home.errands).attend(Errand(Kind.NOTIFY, job)) as is_mine:
            if is_mine and home.has_ended:
                try:
                    self._tell(home)
                except StoreAway as error:  # how it ended stands in its folder
                    log.warning("notice_waits", job=job, detail=str(error))

    def advance(self, job: str) -> None:
        """Calls out what is next in a job, if it was not called out before."""
        home = self._find(job)
        if home is not None:
            self._crier.advance(home)

    def reconcile(self, job: str | None = None) -> None:
        """Calls out again what nobody answered, of one job or of every one."""
        is_idle = self._crier.is_idle()
        for home in self._registry.homes() if job is None else [self._registry.find(job)]:
            try:
                if home.has_ended or self._may_touch(home):
                    self._crier.call_again(home, is_idle=is_idle)
            except (JobRefused, OSError, ValueError) as error:  # the others are not to suffer from it
                log.error("job_unreadable", job=home.id, detail=str(error))

    def _find(self, job: str) -> Home | None:
        """A job that has not ended and may be worked on."""
        home = self._registry.find(job)
        return None if home.has_ended or not self._may_touch(home) else home

    def _may_touch(self, home: Home) -> bool:
        """Whether the job's folder is one that jobs may use; where it is not, the job fails before anything looks there."""
        if self._within is not None:
            try:
                self._within.check_output(home.submission.out)
            except JobRefused as error:
                self._fail(home, error)
                return False
        return True

    def _plan(self, home: Home) -> None:
        """Plans a job that is not, unless it was cancelled before."""
        submission = home.submission
        with reaching(submission.out):
            is_cancelled = home.asked() is Halt.CANCELLED and not home.folder.plan_file.exists()
            if not is_cancelled:
                plan(submission.spec, submission.inputs, home.folder.path, submission.shard_rows, self._within, store_of(submission.out))
        if is_cancelled:
            self._end(home)
            return
        home.go_on()
        self._crier.advance(home)

    def _score(self, home: Home, board: Board, errand: Errand) -> None:
        """Works on a shard until it is done, as often as the GPU worker dies of it."""
        opened = open_planned(home, self._within)
        ledger = Ledger(opened.folder)
        flag = watch(opened.folder)

        def halt() -> Halt | None:
            return Halt.STOPPED if self._is_stopping() else flag()

        halted: Halt | None = None
        while halted is None and not ledger.is_committed(errand.shard):
            try:
                halted = self._attempt(opened, opened.plan.shards[errand.shard], board, errand, halt)
            except WorkerDied as error:
                log.warning("worker_died", job=errand.job, shard=errand.shard, detail=str(error))
                halted = halt()
                continue
            except (WorkerAway, StoreAway) as error:
                self._wait(home, errand, error)
                return
            if halted is None and not ledger.is_committed(errand.shard):
                log.warning("shard_held", job=errand.job, shard=errand.shard, detail="another process works on it, outside of the job's tasks")
                return
        home.go_on()
        if halted is None:
            board.finish(errand)
        else:
            board.strike(errand)

    def _finalise(self, home: Home, board: Board, errand: Errand) -> None:
        opened = open_planned(home, self._within)
        missing = list(opened.commits_missing())
        if any(board.is_attended(Errand(Kind.SCORE, home.id, shard.number)) for shard in missing):
            board.strike(errand)  # whoever ends one of them calls this out again
            return
        is_cancelled = bool(missing) and home.asked() is Halt.CANCELLED
        manifest = finalise(opened, JobState.CANCELLED if is_cancelled else JobState.COMPLETED)
        log.info("job_over", job=home.id, state=manifest.state.value, rows=manifest.data_rows, errors=manifest.error_rows)
        self._end(home)

    def _wait_or_raise(self, home: Home, errand: Errand, error: OSError) -> None:
        """Waits for the folder that the job and its results lie in, where that is away; nothing of it can be looked at until it is back."""
        if not is_outage(error):
            raise error
        self._wait(home, errand, error)

    @staticmethod
    def _wait(home: Home, errand: Errand, error: OSError) -> None:
        """Leaves an errand to later: it stays noted as called, so that it is called out again, but not at once."""
        log.warning("worker_away" if isinstance(error, WorkerAway) else "store_away", job=home.id, errand=errand.name, detail=str(error))
        home.wait(str(error))

    def _attempt(self, job: Job, shard: ShardPlan, board: Board, errand: Errand, halt: Callable[[], Halt | None]) -> Halt | None:
        turnstile = self._turnstile()
        try:
            with self._doors(job) as scorer:
                scoring = Scoring(job, scorer, halt=halt, on_progress=lambda p: board.note(errand, encode_progress(p)), turnstile=turnstile)
                return scoring.run([shard])
        finally:
            turnstile.close()

    def _fail(self, home: Home, error: JobRefused) -> None:
        log.error("job_failed", job=home.id, detail=str(error))
        home.fail(str(error))
        self._crier.call_to_notify(home)

    def _end(self, home: Home) -> None:
        home.end()
        self._crier.call_to_notify(home)
