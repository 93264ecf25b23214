"""Results in an object store: each file under a name that holds its content's hash, the manifest when all of them are there.

An address is one job's. Stores have no name that one of several gets, so a job puts a claim under a name of its own there, and then looks
for other jobs' claims: of two, the later one sees the other's. It withdraws; nobody goes on beside another, and nothing is written over.
That takes a store that lists at once what was put, as those of the large clouds do.
"""

import secrets
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from pyarrow import fs

from pipeline.offline.addresses import extended
from pipeline.offline.filesystems import open_filesystem
from pipeline.offline.folder import RESULT, Folder
from pipeline.offline.reaching import first_line, reaching
from pipeline.offline.refusals import JobRefused, ResultGone, StoreAway
from schemas.job import JobSpec
from schemas.outcome import Destination, Manifest, OutputFile

CLAIM = "_owner-"
"""Beginning of a claim's name; readers of datasets pass over names that begin so."""
OWNER_BYTES = 10
PIECE_BYTES = 16 * 1024 * 1024
"""Handed to the store, which may send it in the background, before the next piece is read."""


def destination_of(folder: Folder, uri: str, spec: JobSpec) -> Destination:
    """Where a job's results go: as its folder has it, or a new one."""
    owner = secrets.token_hex(OWNER_BYTES)
    new = Destination(uri=uri, owner=owner, fingerprint=spec.fingerprint, host=socket.gethostname(), folder=str(folder.path))
    return folder.destination() or new


def claim_of(destination: Destination) -> str:
    """The name of a job's claim at the place of its results."""
    return f"{CLAIM}{destination.owner}.json"


class Store:
    """The place of one job's results. Nothing is opened before it is needed: a process that forks may hold it.

    Where the store is away, `StoreAway` is raised. Where it lets nobody in, what begins a job refuses it, and what goes on with one raises
    `StoreAway` as well: what was computed is not given up for rights that somebody may mend.
    """

    def __init__(self, destination: Destination):
        self._destination = destination
        self._claim = claim_of(destination)

    @property
    def uri(self) -> str:
        """Its address."""
        return self._destination.uri

    def look(self) -> bool:
        """Whether it is this job's already; if not, it is free.

        Raises:
            JobRefused: It is neither, or nobody is let in.
            StoreAway: Nobody can tell just now.
        """
        with reaching(self.uri):
            found = self._list()
        self._check_others(found)
        if self._claim not in found and found:
            raise JobRefused(f"{self.uri} holds {min(found)} and no results of this job: name an address where nothing is")
        return self._claim in found

    def claim(self) -> None:
        """Makes it this job's. It may be done again.

        Raises:
            JobRefused: It is another's, or nothing can be put there.
            StoreAway: Nothing can be put there just now.
        """
        if self.look():
            return
        with reaching(self.uri):
            self._put(self._claim, [self._destination.to_bytes()])
            found = self._list()
        try:
            self._check_others(found)
        except JobRefused:
            with reaching(self.uri):
                self._delete(self._claim)
            raise

    def take(self, folder: Path, results: Iterable[OutputFile]) -> None:
        """Moves files of results there. One that is there already has the same bytes.

        Raises:
            StoreAway: Not all of them are there.
        """
        with self._reached():
            for file in results:
                path = folder / file.name
                with path.open("rb") as content:
                    self._put(file.name, _pieces(content))
                path.unlink()

    def publish(self, manifest: Manifest) -> None:
        """Puts the manifest beside all that it names, and takes away what crashed attempts left. It may be done again.

        Raises:
            StoreAway: It may be there or not.
            JobRefused: The place is another job's, or a file of results is gone.
        """
        trusted = {file.name: file.size_bytes for file in (*manifest.data, *manifest.errors)}
        with self._reached():
            found = self._list()
        self._check_others(found)
        if gone := next((name for name, size_bytes in trusted.items() if found.get(name) != size_bytes), None):
            raise ResultGone(extended(self.uri, f"/{gone}"), Folder(Path(self._destination.folder)).commits)
        with self._reached():
            self._put(Folder.MANIFEST, [manifest.to_bytes()])
            for name in found:
                if RESULT.fullmatch(name) and name not in trusted:
                    self._delete(name)

    def _check_others(self, found: Iterable[str]) -> None:
        if other := next((name for name in found if name.startswith(CLAIM) and name != self._claim), None):
            raise JobRefused(f"{self.uri} is another job's, as {other} there tells: go on with it where it began, or name another address")

    def _list(self) -> dict[str, int]:
        """Sizes by name of what is there; a folder's is 0."""
        filesystem, path = self._place
        return {info.base_name: info.size or 0 for info in filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))}

    def _put(self, name: str, pieces: Iterable[bytes]) -> None:
        filesystem, path = self._place
        with filesystem.open_output_stream(f"{path}/{name}", compression=None) as sink:
            for piece in pieces:
                sink.write(piece)
                sink.flush()  # waits for what is sent in the background, which nothing else bounds

    def _delete(self, name: str) -> None:
        filesystem, path = self._place
        filesystem.delete_file(f"{path}/{name}")

    @cached_property
    def _place(self) -> tuple[Any, str]:
        try:
            return open_filesystem(self.uri)
        except (ValueError, ImportError) as error:
            raise JobRefused(f"{self.uri}: {error}") from None

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Says in one line what the store's library says in several, of a job that has begun."""
        try:
            yield
        except OSError as error:
            raise StoreAway(f"{self.uri}: {first_line(error)}") from None


def _pieces(content: BinaryIO) -> Iterator[bytes]:
    while piece := content.read(PIECE_BYTES):
        yield piece
