"""Which rows a job has, in which shards. Planned once: who plans again gets the same plan, or hears what has changed."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pipeline.offline import columns, files
from pipeline.offline.apart import OwnFiles
from pipeline.offline.confinement import Confinement
from pipeline.offline.folder import Folder
from pipeline.offline.inputs import Source, expand, refresh
from pipeline.offline.prompts import needed_columns
from pipeline.offline.reaching import reaching
from pipeline.offline.readers import open_reader
from pipeline.offline.refusals import JobRefused
from pipeline.offline.store import Store, destination_of
from pipeline.offline.tasks import ERROR_COLUMNS, result_columns
from schemas.job import InputFile, JobPlan, JobSpec, OutputFormat, RowSlice, ShardPlan

SHARD_ROWS = 4_096
"""A window: enough rows to sort by length, and a loss of a minute or so when a shard has to begin anew."""
TOKEN_BYTES = 4
"""Text per token, roughly."""


@dataclass(frozen=True, slots=True)
class Job:
    """A planned job.

    Attributes:
        schema: The input columns that go through to the results.
        needed: Those that prompts are made of.
        within: What may be read; None for whatever this process can.
        store: Takes the results; None if they stay in the folder.
    """

    folder: Folder
    spec: JobSpec
    plan: JobPlan
    schema: Any
    needed: frozenset[str]
    within: Confinement | None = None
    store: Store | None = None

    @property
    def output(self) -> str:
        """Where the results lie."""
        return str(self.folder.path) if self.store is None else self.store.uri

    @property
    def passed_on(self) -> Any:
        """The schema of the input columns in the results."""
        return pa.schema([field for field in self.schema if field.name not in self.spec.drop_columns])

    def commits_missing(self) -> Iterator[ShardPlan]:
        """The shards that are not done."""
        return (shard for shard in self.plan.shards if not self.folder.commit_file(shard.number).exists())


def plan(
    spec: JobSpec, inputs: Sequence[str], out: Path, shard_rows: int = SHARD_ROWS, within: Confinement | None = None, store: str | None = None
) -> Job:
    """Makes a job of a specification and its inputs, or finds it where it is already.

    Args:
        spec: What is to be done.
        inputs: Files, folders and globs, on this machine or in object stores.
        out: The job's folder.
        shard_rows: Rows of a shard; a job that is planned keeps its own.
        within: What may be read and written; None for whatever this process can.
        store: The address that the results go to; None if they stay in the folder.

    Raises:
        JobRefused: The inputs cannot be read, or the folder or the address holds another job; the message says what differs.
        StoreAway: The inputs, the folder or the address are away; the same call plans the job when they are back.
    """
    with reaching(str(out)):  # inputs and the store speak for themselves
        folder = _folder(out, within, store)
        sources = expand(inputs, within, OwnFiles(folder))
        former = folder.spec()
        if former is not None and (changes := former.changes_to(spec)):
            raise JobRefused(f"{store or out} holds another job: {'; '.join(changes)}. Name another folder, or repeat the command that began it")
        planned = folder.plan() if former is not None else None
        if planned is None:
            planned = survey(spec, sources, shard_rows)
            folder.make()
            if store is not None:
                _claim(folder, store, spec)
            files.create_once(folder.spec_file, spec.to_bytes())
            files.create_once(folder.plan_file, planned.to_bytes())
        else:
            _check_unchanged(planned.files, sources)
        return open_job(out, within, store)


def open_job(out: Path, within: Confinement | None = None, store: str | None = None) -> Job:
    """Finds a job by its folder, as whoever works on a shard of it does.

    Raises:
        JobRefused: There is none, or it may not be touched.
    """
    folder = _folder(out, within, store)
    spec, planned, destination = folder.spec(), folder.plan(), folder.destination()
    if spec is None or planned is None:
        raise JobRefused(f"{out} holds no job")
    if store != (None if destination is None else destination.uri):
        raise JobRefused(f"the results of the job in {out} go elsewhere: name their place as in the command that began it")
    folder.make()
    schema = columns.decode(planned)
    return Job(folder, spec, planned, schema, needed_columns(spec, schema), within, None if destination is None else Store(destination))


def preview(
    spec: JobSpec, inputs: Sequence[str], out: Path, shard_rows: int = SHARD_ROWS, within: Confinement | None = None, store: str | None = None
) -> Job:
    """Plans a job without writing anything.

    Raises:
        JobRefused: As `plan` does.
    """
    folder = _folder(out, within, store)
    planned = survey(spec, expand(inputs, within, OwnFiles(folder)), shard_rows)
    schema = columns.decode(planned)
    return Job(folder, spec, planned, schema, needed_columns(spec, schema), within)


def survey(spec: JobSpec, sources: Sequence[Source], shard_rows: int = SHARD_ROWS) -> JobPlan:
    """Reads as much of the inputs as it takes to know every row's place.

    Raises:
        JobRefused: A file is unsound, a column is missing or has a name that results need, or there are no rows.
    """
    found = [_survey(source) for source in sources]
    schema = columns.unify([schema for _, schema in found], [source.partition for source in sources])
    surveyed = [file for file, _ in found]
    _check_columns(spec, schema)
    shares = _shares(found, needed_columns(spec, schema))
    parts = enumerate(_cut(surveyed, shard_rows))
    shards = tuple(ShardPlan(number=number, slices=part, estimated_tokens=_tokens(part, surveyed, shares)) for number, part in parts)
    if not shards:
        raise JobRefused("the inputs hold no rows")
    return JobPlan(files=tuple(surveyed), arrow_schema=columns.encode(schema), shards=shards)


def _folder(out: Path, within: Confinement | None, store: str | None) -> Folder:
    if within is not None:
        within.check_output(store or str(out.absolute()))
    return Folder(out.absolute())


def _claim(folder: Folder, store: str, spec: JobSpec) -> None:
    """Makes an address the job's, or leaves nothing of it. What a former attempt noted stays: its claim may be there."""
    is_first = files.create_once(folder.destination_file, destination_of(folder, store, spec).to_bytes())
    try:
        Store(destination_of(folder, store, spec)).claim()  # of several that begin the job at once, one has written it
    except JobRefused:
        if is_first:
            folder.unmake()
        raise


def _survey(source: Source) -> tuple[InputFile, Any]:
    with reaching(source.uri), closing(open_reader(source)) as reader:
        seen = reader.survey()
    file = InputFile(
        uri=source.uri,
        format=source.format,
        size_bytes=source.size_bytes,
        modified_ns=source.modified_ns,
        edges=source.edges(),
        groups=seen.groups,
        partition=source.partition,
    )
    return file, seen.schema


def _shares(found: Sequence[tuple[InputFile, Any]], needed: Collection[str]) -> list[float]:
    """What part of each file's bytes prompts are made of, if its columns are alike; for an estimate of tokens."""
    return [sum(name in needed for name in schema.names) / max(len(schema.names), 1) for _, schema in found]


def _cut(surveyed: Sequence[InputFile], shard_rows: int) -> Iterator[tuple[RowSlice, ...]]:
    """All rows in order, in parts of `shard_rows`; the last one may have fewer."""
    slices: list[RowSlice] = []
    room = shard_rows
    for number, file in enumerate(surveyed):
        for place, group in enumerate(file.groups):
            start = 0
            while start < group.rows:
                rows = min(room, group.rows - start)
                slices.append(RowSlice(file=number, row_group=place, start=start, rows=rows))
                start, room = start + rows, room - rows
                if not room:
                    yield tuple(slices)
                    slices, room = [], shard_rows
    if slices:
        yield tuple(slices)


def _tokens(slices: Sequence[RowSlice], surveyed: Sequence[InputFile], shares: Sequence[float]) -> int:
    sizes = ((part, surveyed[part.file].groups[part.row_group]) for part in slices)
    return int(sum(group.text_bytes * shares[part.file] * part.rows / group.rows for part, group in sizes) / TOKEN_BYTES)


def _check_columns(spec: JobSpec, schema: Any) -> None:
    if missing := [name for name in spec.drop_columns if name not in schema.names]:
        raise JobRefused(f"the inputs have no column {missing[0]!r} to drop; they have {', '.join(schema.names)}")
    passed = [field for field in schema if field.name not in spec.drop_columns]
    if not passed:
        raise JobRefused("every column of the inputs is dropped: keep one to tell the rows by")
    results = {field.name for field in (*result_columns(spec.task), *ERROR_COLUMNS)}
    if taken := [field.name for field in passed if field.name in results]:
        raise JobRefused(f"the inputs have a column {taken[0]!r}, which the results need: rename it, or drop it with --drop-column {taken[0]}")
    if spec.output_format is OutputFormat.PARQUET:
        try:
            parquet.write_table(pa.schema(passed).empty_table(), pa.BufferOutputStream())
        except (pa.ArrowException, ValueError) as error:
            raise JobRefused(f"Parquet cannot hold a column of the inputs: {error}; drop it, or write arrow") from None


def _check_unchanged(planned: Sequence[InputFile], sources: Sequence[Source]) -> None:
    now = {source.uri: source for source in sources}
    then = {file.uri: file for file in planned}
    if gone := [uri for uri in then if uri not in now]:
        raise JobRefused(f"{gone[0]} is no longer among the inputs; the job was planned with it")
    if new := [uri for uri in now if uri not in then]:
        raise JobRefused(f"{new[0]} was not among the inputs when the job was planned: move it away, or name another folder for a new job")
    if list(now) != list(then):
        raise JobRefused("the inputs are named in another order than when the job was planned")
    for uri, file in then.items():
        check_file(file, now[uri])


def check_file(planned: InputFile, source: Source | None = None) -> None:
    """Holds a file against the plan.

    Raises:
        JobRefused: It has changed.
        StoreAway: It is away.
    """
    if change := (source or refresh(planned)).changes_since(planned):
        raise JobRefused(f"{planned.uri} has changed since the job was planned: {change}. Put it back, or name another folder for a new job")
