"""From what a user names (files, folders, globs, on a disk or in an object store) to files in a fixed order."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pyarrow import fs

from pipeline.offline.addresses import check_open, is_store
from pipeline.offline.apart import OwnFiles
from pipeline.offline.confinement import Confinement
from pipeline.offline.filesystems import open_filesystem
from pipeline.offline.reaching import reaching
from pipeline.offline.refusals import JobRefused
from schemas.job import InputFile, InputFormat

SUFFIXES = {
    ".parquet": InputFormat.PARQUET,
    ".pq": InputFormat.PARQUET,
    ".jsonl": InputFormat.JSONL,
    ".ndjson": InputFormat.JSONL,
    ".csv": InputFormat.CSV,
    ".tsv": InputFormat.TSV,
    ".arrow": InputFormat.ARROW,
    ".feather": InputFormat.ARROW,
    ".ipc": InputFormat.ARROW,
}
EDGE_BYTES = 64 * 1024
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
IN_PATHS = "/:@!$&'()*+,;="
"""What an address's path may hold as it is, beside letters and digits (RFC 3986, 3.3)."""
GLOB = re.compile(r"[*\[]")
GLOB_PART = re.compile(r"\*\*/|\*|\?|\[!?[^\]]+\]|.", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that was found: `filesystem` is pyarrow's, `path` its name there."""

    uri: str
    filesystem: Any
    path: str
    format: InputFormat
    size_bytes: int
    modified_ns: int
    partition: dict[str, str | None] = field(default_factory=dict)

    def open(self) -> Any:
        """Opens it for reading at any place.

        Raises:
            StoreAway: It is away.
            JobRefused: It cannot be opened.
        """
        with reaching(self.uri):
            return self.filesystem.open_input_file(self.path)

    def edges(self) -> str:
        """A hash of its first and last bytes."""
        with reaching(self.uri), self.open() as file:
            first = file.read(EDGE_BYTES)
            file.seek(max(self.size_bytes - EDGE_BYTES, 0))
            return hashlib.blake2b(first + file.read(EDGE_BYTES), digest_size=16).hexdigest()

    def changes_since(self, planned: InputFile) -> str | None:
        """What is no longer as it was planned, if anything."""
        if self.size_bytes != planned.size_bytes:
            return f"it had {planned.size_bytes} bytes and has {self.size_bytes}"
        if self.modified_ns != planned.modified_ns:
            return "it has been written since"
        return None if self.edges() == planned.edges else "its content is another"


def expand(inputs: Sequence[str], within: Confinement | None = None, own: OwnFiles | None = None) -> list[Source]:
    """Lists the files that the inputs name: those of one input by path, and the inputs as they were given.

    Args:
        inputs: Files, folders and globs.
        within: What may be read; None for whatever this process can.
        own: What the job itself makes, which is passed over.

    Raises:
        JobRefused: An input names nothing, or a file twice, or one of a kind that is not read, or that may not be.
        StoreAway: One is away.
    """
    sources = [source for text in inputs for source in _expand(text, within, own)]
    seen: set[str] = set()
    for source in sources:
        if source.uri in seen:
            raise JobRefused(f"{source.uri} is named twice among the inputs: name it once")
        seen.add(source.uri)
    return sources


def locate(uri: str, within: Confinement | None = None) -> tuple[Any, str]:
    """The file system that holds a file, and the file's path there.

    Raises:
        JobRefused: There is no such file system, or it may not be used, or the address holds a secret.
        StoreAway: It is away.
    """
    if within is not None:
        within.check(uri)
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).absolute())
    check_open(uri)
    try:
        with reaching(uri):
            return open_filesystem(uri)
    except (ValueError, ImportError) as error:
        raise JobRefused(f"{uri}: {error}") from None


def refresh(planned: InputFile, within: Confinement | None = None) -> Source:
    """Looks for a file of the plan as it is now.

    Raises:
        JobRefused: It is gone, or may not be read.
        StoreAway: It is away.
    """
    filesystem, path = locate(planned.uri, within)
    info = _info(filesystem, path, planned.uri)
    if info.type != fs.FileType.File:
        mended = "put it back" if is_store(planned.uri) else "put it back, or mount the share that it lies on"
        raise JobRefused(f"{planned.uri} is gone; the job was planned with it: {mended}, and repeat the command that began the job")
    return Source(
        uri=planned.uri,
        filesystem=filesystem,
        path=path,
        format=planned.format,
        size_bytes=info.size,
        modified_ns=info.mtime_ns or 0,
        partition=planned.partition,
    )


def _expand(text: str, within: Confinement | None, own: OwnFiles | None) -> list[Source]:
    address, question, query = text.partition("?") if "://" in text else (text, "", "")
    filesystem, path = locate(text if not GLOB.search(address) else _fixed_part(address) + question + query, within)
    info = _info(filesystem, path, text)
    if GLOB.search(address) and not _exists(filesystem, text):
        pattern = glob_pattern(address[len(_fixed_part(address)) :].lstrip("/"))
        listed = _walk(filesystem, path, text)
        found = [file for file in listed if pattern.fullmatch(file.path[len(path) :].lstrip("/"))]
    elif info.type == fs.FileType.Directory:
        listed = _walk(filesystem, path, text)
        found = [file for file in listed if not _is_hidden(file.path[len(path) :]) and _format(file.path) is not None]
    elif info.type == fs.FileType.File:
        listed = found = [info]
    else:
        raise JobRefused(f"{text}: no such file or folder" + ("" if is_store(text) else "; if it lies on a share, mount that first"))
    if not found:
        raise JobRefused(f"{text}: matches no file ({', '.join(SUFFIXES)} are read)")
    if own is not None and not (found := own.taken_out(filesystem, found, listed)):
        raise JobRefused(f"{text}: nothing is there but what lies in the job's own output: name other inputs, or another output")
    root = path if info.type == fs.FileType.Directory else str(Path(path).parent)
    sources = [_source(filesystem, file, root, text) for file in sorted(found, key=lambda file: str(file.path))]
    if within is not None:
        for source in sources:  # a folder may hold links
            within.check(source.uri)
    return sources


def glob_pattern(glob: str) -> re.Pattern[str]:
    """`*`, `?` and `[…]` stay within one folder's name, `**/` is any number of folders."""
    return re.compile(GLOB_PART.sub(_translated, glob))


def _translated(part: re.Match[str]) -> str:
    text = part[0]
    if text[0] == "[" and len(text) > 1:
        return "[" + text[1:].replace("!", "^", 1)
    return {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}.get(text) or re.escape(text)


def _fixed_part(address: str) -> str:
    """The address up to the last folder before the first wildcard."""
    before = address[: GLOB.search(address).start()]  # type: ignore[union-attr] # it is only asked of addresses with one
    return before.rpartition("/")[0] + "/" if "/" in before else "."


def _exists(filesystem: Any, text: str) -> bool:
    return "://" not in text and _info(filesystem, str(Path(text).absolute()), text).type == fs.FileType.File


def _info(filesystem: Any, path: str, text: str) -> Any:
    with reaching(text):
        return filesystem.get_file_info(path)


def _walk(filesystem: Any, folder: str, text: str) -> list[Any]:
    with reaching(text):
        listed = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    return [info for info in listed if info.type == fs.FileType.File]


def _is_hidden(relative: str) -> bool:
    """As with other programs' datasets: names that begin so are marks and logs, not data."""
    return any(part.startswith(("_", ".")) and "=" not in part for part in relative.split("/") if part)


def _format(path: str) -> InputFormat | None:
    return SUFFIXES.get(Path(path).suffix.lower())


def _source(filesystem: Any, info: Any, root: str, text: str) -> Source:
    form = _format(info.path)
    if form is None:
        raise JobRefused(f"{info.path}: its ending is not one that is read ({', '.join(SUFFIXES)}); unpack or rename it")
    return Source(
        uri=_uri(text, info.path),
        filesystem=filesystem,
        path=info.path,
        format=form,
        size_bytes=info.size,
        modified_ns=info.mtime_ns or 0,
        partition=_partition(info.path[len(root) :]),
    )


def _uri(text: str, path: str) -> str:
    if "://" not in text:
        return path
    scheme, _, rest = text.partition("://")
    query = rest.partition("?")[2]
    return f"{scheme}://{quote(path, safe=IN_PATHS)}" + (f"?{query}" if query else "")


def _partition(relative: str) -> dict[str, str | None]:
    """`year=2024/part-0.parquet` gives a column `year`."""
    folders = relative.strip("/").split("/")[:-1]
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return {unquote(name): None if value == NULL_PARTITION else unquote(value) for name, _, value in pairs}
