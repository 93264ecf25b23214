"""The jobs that were submitted, each by its id, in a folder that all who work on them share."""

import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.offline import files
from pipeline.offline.addresses import absolute, is_store
from pipeline.offline.flags import lower_pause, raise_flag, read_flag
from pipeline.offline.folder import Folder
from pipeline.offline.refusals import JobRefused
from pipeline.offline.scoring import Halt
from pipeline.settings import Settings
from schemas.job import JobRecord, JobSpec

JOB_ID = r"^job-[0-9a-f]{20}$"
OWN = 0o755
"""A list of jobs is its user's own, whatever his umask; to let others in is a decision of its own."""


WORK = "work"
"""The folder of a job whose results go to a store, which cannot hold locks and links: in the job's home."""


class UnknownJob(JobRefused):
    """There is no job of that name."""


class Submission(JobRecord):
    """What a job is, as it was submitted. `out`, where its results go, is what its id is made of."""

    id: str = Field(pattern=JOB_ID)
    inputs: tuple[str, ...] = Field(min_length=1)
    out: str
    spec: JobSpec
    shard_rows: int = Field(ge=1)
    webhook: str | None = None
    submitted_ms: int

    def changes_to(self, other: "Submission") -> list[str]:
        """Names what the other one computes otherwise."""
        changes = self.spec.changes_to(other.spec)
        if self.inputs != other.inputs:
            changes.append(f"the inputs were {', '.join(self.inputs)} and are {', '.join(other.inputs)}")
        return changes


def job_id_of(out: str) -> str:
    """The id of the job whose results go there: who submits the same again means the same job."""
    return f"job-{hashlib.blake2b(os.fsencode(absolute(out)), digest_size=10).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Home:
    """What is kept of one job beside its own folder: that it was submitted, and who works on what of it."""

    path: Path

    @property
    def id(self) -> str:
        """The job's."""
        return self.path.name

    @property
    def submission_file(self) -> Path:
        """What was submitted."""
        return self.path / "job.json"

    @property
    def is_sound(self) -> bool:
        """Whether a job was submitted here. Nothing is written through a link, which whoever may fill the list could have put there."""
        return self.submission_file.exists() and not self.path.is_symlink()

    @property
    def errands(self) -> Path:
        """Notes and locks of those who work on it."""
        return self.path / "errands"

    @property
    def submission(self) -> Submission:
        """What was submitted."""
        return Submission.model_validate_json(self.submission_file.read_bytes())

    @property
    def folder(self) -> Folder:
        """The job's own folder."""
        return self.folder_of(self.submission.out)

    def folder_of(self, out: str) -> Folder:
        """The same, of a job whose results go there, before it is submitted."""
        return Folder(self.path / WORK if is_store(out) else Path(out))

    @property
    def failure(self) -> str | None:
        """Why the job cannot go on, if it cannot."""
        return self._noted("failure")

    def fail(self, reason: str) -> None:
        """Ends the job until it is submitted again."""
        files.replace(self.path / "failure", reason.encode())

    @property
    def waiting(self) -> str | None:
        """What keeps the job from going on just now, if somebody came to know."""
        return self._noted("waiting")

    def wait(self, reason: str) -> None:
        """Notes what the job waits for."""
        files.replace(self.path / "waiting", reason.encode())

    def go_on(self) -> None:
        """Notes that it waits no more."""
        (self.path / "waiting").unlink(missing_ok=True)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done, but perhaps to tell of it."""
        return (self.path / "over").exists()

    @property
    def has_ended(self) -> bool:
        """Whether nobody works on it any more, done or not."""
        return self.is_over or self.failure is not None

    def end(self) -> None:
        """Takes the job off the list of those that are worked on."""
        files.replace(self.path / "over", b"")
        shutil.rmtree(self.errands, ignore_errors=True)

    @property
    def notice_file(self) -> Path:
        """There as long as somebody outside is to be told of the job's end; changed at the time of the next attempt."""
        return self.path / "notice.json"

    @property
    def owes_notice(self) -> bool:
        """Whether it is time to tell somebody outside of the job's end, if it has ended."""
        with suppress(FileNotFoundError):
            return self.notice_file.stat().st_mtime <= time.time()
        return False

    @property
    def untold(self) -> str | None:
        """Why nobody outside hears of the job's end any more, if that was given up."""
        return self._noted("untold")

    def give_notice_up(self, reason: str) -> None:
        """Owes nobody outside a word of the job's end, until it is submitted again."""
        files.replace(self.path / "untold", reason.encode())
        self.notice_file.unlink(missing_ok=True)

    def ask(self, halt: Halt) -> None:
        """Asks everybody to pause or to end the job, whether it is planned or not."""
        is_planned = self.folder.plan_file.exists()
        raise_flag(self.folder if is_planned else Folder(self.path), halt)
        if halt is Halt.CANCELLED and not is_planned:
            self._recall()  # a plan may wait long for a store; its end need not

    def resume(self) -> None:
        """Takes the wish for a pause back."""
        lower_pause(self.folder)
        lower_pause(Folder(self.path))

    def asked(self) -> Halt | None:
        """What is asked of those who work on the job. What was asked before there was a plan counts as well."""
        wishes = {read_flag(self.folder), read_flag(Folder(self.path))}
        return next((halt for halt in (Halt.CANCELLED, Halt.PAUSED) if halt in wishes), None)

    def reopen(self) -> None:
        """Lets a job that failed, was paused or is over be looked at again, by everybody."""
        self.resume()
        if self.submission.webhook is None:
            self.notice_file.unlink(missing_ok=True)  # one that an earlier submission asked for
        else:
            files.replace(self.notice_file, b"{}")
        self._recall()
        for name in ("failure", "over", "waiting", "untold"):
            (self.path / name).unlink(missing_ok=True)

    def _noted(self, name: str) -> str | None:
        with suppress(FileNotFoundError):
            return (self.path / name).read_text(encoding="utf-8")
        return None

    def _recall(self) -> None:
        """Takes all calls back, so that they may be made at once."""
        for path in self.errands.glob("*.called"):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Registry:
    """The folder of all jobs."""

    root: Path

    def submit(self, submission: Submission) -> Home:
        """Takes a job, or finds the one that its folder holds and lets it go on.

        Raises:
            JobRefused: The folder holds another job, or one that was cancelled.
        """
        with self.making_home(submission.out) as home:
            folder = home.folder_of(submission.out)
            former, held = home.submission if home.submission_file.exists() else None, folder.spec()
            if held is None and home.has_ended:
                self._forget(home)
            elif changes := former.changes_to(submission) if former is not None else [] if held is None else held.changes_to(submission.spec):
                raise JobRefused(
                    f"{submission.out} holds another job: {'; '.join(changes)}. Name another folder, or repeat the command that began it"
                )
            elif Halt.CANCELLED in (read_flag(folder), read_flag(Folder(home.path))):
                raise JobRefused(f"the job in {submission.out} was cancelled: name another folder")
            home.errands.mkdir(mode=OWN, exist_ok=True)
            files.replace(home.submission_file, submission.to_bytes())
            home.reopen()
            return home

    def make(self) -> None:
        """Makes the list, if it is not there."""
        self.root.mkdir(mode=OWN, parents=True, exist_ok=True)

    def home_of(self, out: str) -> Home:
        """Where a job is kept whose results go there, submitted or not."""
        return Home(self.root / job_id_of(out))

    @contextmanager
    def making_home(self, out: str) -> Iterator[Home]:
        """Makes that place, if it is not there; it stays if something comes to be kept in it, so that a refused job leaves none."""
        home = self.home_of(out)
        self.make()
        files.make_folder(home.path, OWN)
        try:
            yield home
        finally:
            with suppress(OSError):  # as most often, something is
                home.path.rmdir()

    def find(self, job: str) -> Home:
        """Finds a job by its id.

        Raises:
            UnknownJob: There is none.
        """
        home = Home(self.root / job)
        if re.fullmatch(JOB_ID, job) is None or not home.is_sound:
            raise UnknownJob(f"there is no job {job!r}; `penstock jobs list` shows those that there are")
        return home

    def homes(self) -> Iterator[Home]:
        """All jobs, in no order."""
        with suppress(FileNotFoundError):
            for path in self.root.iterdir():
                home = Home(path)
                if re.fullmatch(JOB_ID, path.name) is not None and home.is_sound:
                    yield home

    @staticmethod
    def _forget(home: Home) -> None:
        """Clears what is left of a job whose folder is gone, for another one that takes its place."""
        shutil.rmtree(home.errands, ignore_errors=True)
        for path in home.path.iterdir():
            if path.is_file():
                path.unlink(missing_ok=True)


def is_own(root: Path) -> bool:
    """Whether nobody but this user can list jobs there, as where one of his processes made it. What is not there yet, he will make."""
    try:
        status = root.stat()
    except FileNotFoundError:
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def open_registry(settings: Settings) -> Registry:
    """The registry of jobs that the settings name."""
    return Registry(settings.jobs.folder or settings.data_dir / "jobs")
