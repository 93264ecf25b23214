"""A job's folder: what lies where in it."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.offline import files
from pipeline.offline.refusals import JobRefused
from schemas.job import JobPlan, JobSpec
from schemas.outcome import Destination, Manifest, ShardCommit

SHARD_DIGITS = 7
"""Of a shard's number in file names, so that names sort in input order up to ten million shards."""
RESULTS = ("data-", "errors-")
RESULT = re.compile(r"(data|errors)-\d+-[0-9a-f]+\.[a-z]+")
"""The name of a whole file of results."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths, and the records that lie there."""

    path: Path

    MANIFEST: ClassVar = "manifest.json"
    FLAGS: ClassVar = ("cancelled", "paused")

    @property
    def spec_file(self) -> Path:
        """What the job is."""
        return self.path / "spec.json"

    @property
    def plan_file(self) -> Path:
        """Its rows."""
        return self.path / "plan.json"

    @property
    def destination_file(self) -> Path:
        """Where its results go, if they do not stay in the folder."""
        return self.path / "destination.json"

    @property
    def manifest_file(self) -> Path:
        """What became of it."""
        return self.path / self.MANIFEST

    @property
    def commits(self) -> Path:
        """One file per shard that is done."""
        return self.path / "commits"

    @property
    def journal(self) -> Path:
        """What is known of shards that are not done."""
        return self.path / "journal"

    def make(self) -> None:
        """Makes the folder and those in it.

        Raises:
            JobRefused: Something else has one of their names, or the folder holds what is no job.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        files.make_folder(self.path)
        if not self.spec_file.exists() and (other := next(filter(self._is_foreign, self.path.iterdir()), None)):
            raise JobRefused(f"{self.path} holds {other.name} and no job: name an empty folder, or one that is not there")
        for folder in (self.commits, self.journal):
            files.make_folder(folder)

    def unmake(self) -> None:
        """Takes away what an attempt at planning made, if there is no job and nothing else."""
        if not self.spec_file.exists():
            self.destination_file.unlink(missing_ok=True)
            for folder in (self.commits, self.journal, self.path):
                with suppress(OSError):  # not empty, or gone
                    folder.rmdir()

    def spec(self) -> JobSpec | None:
        """The specification, if there is one."""
        return JobSpec.model_validate_json(self.spec_file.read_bytes()) if self.spec_file.exists() else None

    def plan(self) -> JobPlan | None:
        """The plan, if there is one."""
        return JobPlan.model_validate_json(self.plan_file.read_bytes()) if self.plan_file.exists() else None

    def destination(self) -> Destination | None:
        """Where in a store the results go, if they do."""
        return Destination.model_validate_json(self.destination_file.read_bytes()) if self.destination_file.exists() else None

    def manifest(self) -> Manifest | None:
        """The manifest, if the job is over."""
        return Manifest.model_validate_json(self.manifest_file.read_bytes()) if self.manifest_file.exists() else None

    def commit_file(self, shard: int) -> Path:
        """Where a shard's commit lies."""
        return self.commits / f"{self.shard_name(shard)}.json"

    def commit(self, shard: int) -> ShardCommit | None:
        """A shard's commit, if it is done."""
        try:
            return ShardCommit.model_validate_json(self.commit_file(shard).read_bytes())
        except FileNotFoundError:
            return None

    def result_files(self) -> Iterator[Path]:
        """Every file that is named as results are, whoever trusts it, and what is half written."""
        for path in self.path.iterdir():
            if path.name.startswith(RESULTS) or path.name.endswith(files.TEMPORARY):
                yield path

    def _is_foreign(self, path: Path) -> bool:
        """Whether a file is none that an attempt at planning leaves when it is killed."""
        is_own_folder = path in (self.commits, self.journal) and path.is_dir() and not any(path.iterdir())
        return not is_own_folder and path != self.destination_file and not path.name.endswith(files.TEMPORARY)

    def is_own(self, path: Path) -> bool:
        """Whether a job makes files of that path."""
        if path.parent != self.path:
            return self.commits in path.parents or self.journal in path.parents
        if path in (self.spec_file, self.plan_file, self.destination_file, self.manifest_file) or path.name in self.FLAGS:
            return True
        return path.name.endswith(files.TEMPORARY) or RESULT.fullmatch(path.name) is not None

    @staticmethod
    def shard_name(shard: int) -> str:
        """A shard's number as names have it."""
        return f"{shard:0{SHARD_DIGITS}d}"
