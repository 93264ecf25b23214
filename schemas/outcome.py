"""What becomes of a job over a dataset: its files of results and where they go, one commit per shard, the manifest at the end."""

from enum import StrEnum

from schemas.job import VERSION, InputFile, JobRecord, JobSpec


class JobState(StrEnum):
    """How a job stands, as its manifest says."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"


class OutputFile(JobRecord):
    """A file of results; its name holds the beginning of its hash."""

    name: str
    rows: int
    size_bytes: int
    sha256: str


class Destination(JobRecord):
    """Where in an object store a job's results go, and whose they are: it lies in the job's folder, and as the job's claim beside its results.

    `owner` is a name that no other job has; `fingerprint` is the specification's. `host` and `folder` tell where the job is worked on.
    """

    version: int = VERSION
    uri: str
    owner: str
    fingerprint: str
    host: str
    folder: str


class TokenUsage(JobRecord):
    """Tokens that were computed. `computed_rows` leaves out the rows that another row answers, and those that no model saw."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    computed_rows: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        return TokenUsage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            computed_rows=self.computed_rows + other.computed_rows,
        )


class ShardCommit(JobRecord):
    """That a shard is done: written once, and what readers trust. Times are epoch milliseconds."""

    shard: int
    rows: int
    data: OutputFile | None
    errors: OutputFile | None
    error_codes: dict[str, int]
    usage: TokenUsage
    dtype: str
    started_ms: int
    finished_ms: int

    @property
    def files(self) -> tuple[OutputFile, ...]:
        """Its files, data first."""
        return tuple(file for file in (self.data, self.errors) if file is not None)

    @property
    def failed_rows(self) -> int:
        """Rows among the errors."""
        return 0 if self.errors is None else self.errors.rows


class Manifest(JobRecord):
    """What became of the job: lineage, counts, usage, throughput. `active_s` is the time in which some shard was worked on."""

    version: int = VERSION
    state: JobState
    spec: JobSpec
    fingerprint: str
    inputs: tuple[InputFile, ...]
    shards: int
    planned_rows: int
    data_rows: int
    error_rows: int
    error_codes: dict[str, int]
    usage: TokenUsage
    dtypes: tuple[str, ...]
    active_s: float
    rows_per_s: float
    tokens_per_s: float
    data: tuple[OutputFile, ...]
    errors: tuple[OutputFile, ...]
