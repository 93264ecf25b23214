"""Files that are whole or not there: written under another name, flushed to the disk, then named; the folder is flushed too."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.offline.refusals import JobRefused
from schemas.outcome import OutputFile

TEMPORARY = ".tmp"
HASH_CHARACTERS = 16
"""Of the content's hash, in a file's name."""
CHUNK_BYTES = 1024 * 1024


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Makes a folder that lasts, with such rights less the umask's; one that is there already must be a real one.

    Raises:
        JobRefused: There is a link or a file of that name.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
        sync_folder(path.parent)
    if path.is_symlink() or not path.is_dir():
        raise JobRefused(f"{path}: is a link or no folder, and nothing is written through it: remove it")


def replace(path: Path, content: bytes) -> None:
    """Writes a file in place of whatever has its name."""
    with _written(path, content) as temporary:
        temporary.replace(path)
    sync_folder(path.parent)


def create_once(path: Path, content: bytes) -> bool:
    """Writes a file unless its name is taken; tells whether it did. Of several that try, one does."""
    with _written(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    sync_folder(path.parent)
    return True


def temporary_beside(path: Path) -> Path:
    """A name that nobody else uses, for what becomes `path`."""
    return path.with_name(f"{path.name}.{secrets.token_hex(6)}{TEMPORARY}")


def seal(temporary: Path, stem: str, suffix: str, rows: int) -> OutputFile:
    """Gives a file of results, written and closed, its lasting name, in the same folder."""
    digest = hashlib.sha256()
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        size_bytes = file.tell()
    name = f"{stem}-{digest.hexdigest()[:HASH_CHARACTERS]}{suffix}"
    temporary.replace(temporary.with_name(name))
    sync_folder(temporary.parent)
    return OutputFile(name=name, rows=rows, size_bytes=size_bytes, sha256=digest.hexdigest())


def sync_folder(path: Path) -> None:
    """Flushes a folder's list of names."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    temporary = temporary_beside(path)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        with open(file, "wb") as stream:  # noqa: PTH123 -- a descriptor, not a path
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
