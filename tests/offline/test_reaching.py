"""What is waited out, and what is told at once."""

import errno
import os
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from pipeline.offline import files
from pipeline.offline.plan import plan
from pipeline.offline.reaching import is_outage, misread, reaching
from pipeline.offline.refusals import JobRefused, StoreAway
from tests.offline.conftest import SHARD_ROWS, Script, make_spec, outcome, run
from tests.offline.flaky_store import FlakyStore, flaky

__all__ = ["flaky"]

AWS = "When getting information for key 'in' in bucket 'data': AWS Error {} during HeadObject operation: No response body."


@pytest.mark.parametrize(
    "error",
    [
        OSError(AWS.format("NETWORK_CONNECTION")),
        OSError(AWS.format("SLOW_DOWN")),
        OSError(AWS.format("UNKNOWN (HTTP status 503)")),
        OSError(AWS.format("UNKNOWN (HTTP status 429)")),
        OSError("google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of PerformWork() - CURL error [7])"),
        OSError("Azure Error: [] Fail to get a new connection for: http://127.0.0.1:1. Could not connect to server"),
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.ENOTCONN, "Transport endpoint is not connected"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EHOSTDOWN, "Host is down"),
        ConnectionRefusedError(),
        TimeoutError(),
        StoreAway("s3://b is away"),
    ],
    ids=str,
)
def test_outages_are_waited_out(error: OSError):
    """In the words of the stores' clients, and by the numbers of shares; the message is one line with the place's name."""
    assert is_outage(error)
    assert isinstance(misread("x", error, "not sound"), StoreAway)
    with pytest.raises(StoreAway) as away, reaching("s3://b/x"):
        raise type(error)(*error.args)
    assert "\n" not in str(away.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(AWS.format("ACCESS_DENIED")),
        OSError(AWS.format("NO_SUCH_BUCKET")),
        OSError(AWS.format("UNKNOWN (HTTP status 400)")),
        OSError("google::cloud::Status(PERMISSION_DENIED: the caller has no access)"),
        OSError("Couldn't deserialize thrift: TProtocolException\nmore"),
        FileNotFoundError(errno.ENOENT, "AWS Error SLOW_DOWN is a file's name"),
        PermissionError(errno.EACCES, "Permission denied"),
        NotADirectoryError(errno.ENOTDIR, "Not a directory"),
        OSError(errno.ELOOP, "Too many levels of symbolic links"),
        OSError(errno.ENAMETOOLONG, "File name too long"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
    ids=str,
)
def test_faults_are_told_at_once(error: OSError):
    """What nobody mends does not get better; a file's name is no message of a store."""
    assert not is_outage(error)
    assert isinstance(misread("x", error, "not sound"), JobRefused)
    with pytest.raises(JobRefused, match=r"^s3://b/x: cannot be reached: [^\n]+$"), reaching("s3://b/x"):
        raise error


def test_what_is_not_there_is_no_outage_and_the_message_names_the_way_out(dataset: Path, out: Path):
    """An unmounted share looks just like it: before the plan, and in the middle of the job, which goes on when the file is back."""
    aside = dataset.parent.rename(dataset.parent.with_name("unmounted"))
    with pytest.raises(JobRefused, match="no such file or folder; if it lies on a share, mount that first"):
        plan(make_spec(), [str(dataset)], out)
    aside.rename(dataset.parent)
    job = plan(make_spec(), [str(dataset)], out, SHARD_ROWS)
    dataset.parent.rename(aside)
    with pytest.raises(JobRefused, match=r"is gone; .*mount the share that it lies on, and repeat the command"):
        run(job, Script())
    aside.rename(dataset.parent)
    run(plan(make_spec(), [str(dataset)], out, SHARD_ROWS), Script())
    assert not list(job.commits_missing())


@pytest.mark.parametrize("name", ["rows.arrow", "rows.jsonl", "rows.csv"])
def test_the_kernels_own_word_for_a_broken_disk_gets_through(tmp_path: Path, out: Path, name: str):
    """A real one: the first page of a process's memory is a file that can be opened and not read, and that has no length."""
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(StoreAway, match=rf"{name}: .*Input/output error"):
        plan(make_spec(), [str(tmp_path / name)], out)


def write(path: Path) -> list[str]:
    """A file of the kind that its ending tells; returns its texts."""
    rows = [f"row {number}" for number in range(20)]
    table = pa.table({"text": rows})
    match path.suffix:
        case ".parquet":
            parquet.write_table(table, path)
        case ".arrow":
            with ipc.new_file(path, table.schema) as sink:
                sink.write_table(table)
        case ".jsonl":
            path.write_text("".join(f'{{"text": "{row}"}}\n' for row in rows))
        case ".csv":
            path.write_text("\n".join(["text", *rows]) + "\n")
    return rows


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.jsonl", "rows.csv"])
def test_inputs_that_go_away_are_waited_for_at_any_moment_of_a_job(flaky: FlakyStore, tmp_path: Path, name: str):
    """While they are listed, opened and read, for the plan and for a shard: the job goes on when they are back, and no row is lost."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    rows, given = write(folder / name), [f"s3://{folder}"]
    for verb in ("info", "list", "open", "read"):
        with flaky.failing(verb), pytest.raises(StoreAway, match=r"^s3://\S+: .*SERVICE_UNAVAILABLE"):
            plan(make_spec(), given, out, SHARD_ROWS)
        assert not out.exists()
    job = plan(make_spec(), given, out, SHARD_ROWS)
    for verb in ("info", "open", "read"):
        with flaky.failing(verb), pytest.raises(StoreAway):
            run(job, Script())
    run(job, Script())
    assert [row["output"] for row in outcome(out.glob("data-*"))] == [row.upper() for row in rows]


def test_a_place_for_results_that_is_away_is_waited_for(dataset: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    """A share is away by its number; where a path is not sound, or nobody is let in, one line says so."""
    for number, refusal in ((errno.ESTALE, StoreAway), (errno.EACCES, JobRefused)):
        with monkeypatch.context() as patched:
            patched.setattr(files, "make_folder", Mock(side_effect=OSError(number, os.strerror(number))))
            with pytest.raises(refusal, match=rf"out: cannot be reached: .*{os.strerror(number)}"):
                plan(make_spec(), [str(dataset)], out)
    (out.parent / "file").touch()
    with pytest.raises(JobRefused, match=r"^[^\n]+cannot be reached: [^\n]+$"):
        plan(make_spec(), [str(dataset)], out.parent / "file" / "out")
