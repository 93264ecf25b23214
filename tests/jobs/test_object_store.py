"""`penstock jobs` with results in an object store: a real S3 server on this machine."""

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from tests.jobs.conftest import Bench, Command
from tests.jobs.test_verbs import config, finish, rows, submit
from tests.object_store import BUCKET, ObjectStore, object_store

__all__ = ["config", "object_store", "rows"]

pytestmark = pytest.mark.integration


def test_a_job_from_submission_to_results_that_are_inputs_again(command: Command, config: Path, rows: Path, bench: Bench, object_store: ObjectStore):
    """`show` and `results` name the store; rows that failed are read from there as a job of their own, beside it."""
    out = f"s3://{BUCKET}/out{object_store.query}"
    job = submit(command, config, rows, out)
    assert submit(command, config, rows, f"s3://{BUCKET}/out/{object_store.query}") == job
    finish(bench, job)
    assert json.loads(command("jobs", "show", job, "--json", "--config", config).out)["output"] == out
    [data] = command("jobs", "results", job, "--config", config).out.split()
    assert data.startswith(f"s3://{BUCKET}/out/data-0000000-")
    with object_store.filesystem.open_input_file(data.removeprefix("s3://").partition("?")[0]) as file:
        assert [row["id"] for row in parquet.read_table(file).to_pylist()] == [0, 2, 4]
    done = command("jobs", "retry-errors", job, "--config", config)
    assert done.code == 0, done.err
    again = done.out.strip()
    finish(bench, again)
    shown = json.loads(command("jobs", "show", again, "--json", "--config", config).out)
    assert (shown["phase"], shown["rows"], shown["output"]) == ("completed", 2, f"s3://{BUCKET}/out-retry{object_store.query}")


def test_what_is_another_jobs_is_refused_when_it_is_submitted(command: Command, config: Path, rows: Path, bench: Bench, object_store: ObjectStore):
    """By whoever submits, in one line; no job is made of it."""
    with object_store.filesystem.open_output_stream(f"{BUCKET}/out/theirs.txt") as file:
        file.write(b"x")
    out = f"s3://{BUCKET}/out{object_store.query}"
    refused = command("jobs", "submit", rows, "-o", out, "--task", "generate", "--column", "text", "--config", config)
    assert refused.code == 1
    assert "holds theirs.txt and no results of this job" in refused.err
    assert list(bench.registry.homes()) == []
