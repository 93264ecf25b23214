"""A job's own files are never its inputs, on whatever way an input leads to them: a folder may hold the place of the results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipeline.offline.folder import RESULT, Folder
from pipeline.offline.refusals import JobRefused
from pipeline.offline.store import CLAIM, claim_of


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """The files that a job makes: in its folder, and in the store that its results go to, if they do.

    A path of this machine is told after links and `..` in it are resolved. A place in a store has many addresses, so it is told by the
    job's claim there, which lists with the results.
    """

    folder: Folder

    def taken_out(self, filesystem: Any, found: Sequence[Any], listed: Iterable[Any]) -> list[Any]:
        """Those of the files found that the job has not made.

        Args:
            filesystem: Where they lie.
            found: What pyarrow tells of them.
            listed: The same of all that is there, whatever the input picks of it.

        Raises:
            JobRefused: A file lies in the job's folder that is not the job's.
        """
        if isinstance(filesystem, fs.LocalFileSystem):
            real = Folder(self.folder.path.resolve())
            found = [info for info in found if not self._is_own(real, info.path)]
        places = self._claimed(listed)
        return [info for info in found if not (_above(info.path) in places and _is_result(info.base_name))]

    def _is_own(self, folder: Folder, path: str) -> bool:
        file = Path(path).resolve()
        if not file.is_relative_to(folder.path):
            return False
        if not folder.is_own(file):
            raise JobRefused(f"{self.folder.path} holds the input {path}: name another folder for the results, or move the input")
        return True

    def _claimed(self, listed: Iterable[Any]) -> set[str]:
        """The folders that hold this job's claim."""
        destination = self.folder.destination()
        if destination is None:
            return set()
        claim = claim_of(destination)
        return {_above(info.path) for info in listed if info.base_name == claim}


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _is_result(name: str) -> bool:
    return name == Folder.MANIFEST or name.startswith(CLAIM) or RESULT.fullmatch(name) is not None
