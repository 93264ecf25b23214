"""Who works on a shard, and that it is done: a lock that ends with its holder, a record that is written once."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.offline import files
from pipeline.offline.folder import Folder
from schemas.outcome import ShardCommit

LOCK = ".lock"


@dataclass(slots=True)
class ShardLock:
    """The right to work on a shard. The kernel takes it back when the process ends, however it ends."""

    descriptor: int

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Takes the lock, or returns None where another process has it."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def release(self) -> None:
        """Lets others have it."""
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The commits of one job."""

    folder: Folder

    def lock(self, shard: int) -> ShardLock | None:
        """Takes a shard, unless somebody has it."""
        return ShardLock.take(self.folder.journal / f"{self.folder.shard_name(shard)}{LOCK}")

    def is_committed(self, shard: int) -> bool:
        """Whether a shard is done."""
        return self.folder.commit_file(shard).exists()

    def commit(self, commit: ShardCommit) -> bool:
        """Makes a shard done; tells whether it was this commit that did. One that comes late has worked in vain, and changes nothing."""
        return files.create_once(self.folder.commit_file(commit.shard), commit.to_bytes())
