"""`penstock jobs` with results in an object store: a real S3 server on this machine."""

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from pipeline.offline.jobs.tally import Phase, Tally
from tests.jobs.conftest import Bench, Command
from tests.jobs.test_away import call_again
from tests.jobs.test_verbs import config, finish, rows, submit
from tests.object_store import BUCKET, ObjectStore, give_keys, object_store, serving
from tests.offline.conftest import ROWS

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


def test_a_plan_waits_for_a_server_that_does_not_run(bench: Bench, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether it is asked for inputs or for room; when it runs again the job is planned and done. A bucket that is not there fails it at once."""
    give_keys(monkeypatch)
    with serving() as former:
        address, query = former.address, former.query
    reading = bench.submit(dataset, tmp_path / "out", inputs=(f"s3://{BUCKET}/in{query}",))
    writing = bench.submit(dataset, f"s3://{BUCKET}/out{query}")
    missing = bench.submit(dataset, f"s3://missing/out{query}")
    for home in (reading, writing):
        bench.driver.advance(home.id)
        bench.answer_all()
        standing = Tally(home).read()
        assert standing.phase is Phase.QUEUED
        assert "NETWORK_CONNECTION" in (standing.waiting or "")
    with serving(int(address.rpartition(":")[2])) as store:
        with store.filesystem.open_output_stream(f"{BUCKET}/in/rows.parquet") as file:
            file.write(dataset.read_bytes())
        for home in (reading, writing, missing):
            call_again(bench, home)
            bench.answer_all()
        assert {name.partition("-")[0] for name in store.names("out")} >= {"data", "manifest.json"}
    assert [Tally(home).read().phase for home in (reading, writing, missing)] == [Phase.COMPLETED, Phase.COMPLETED, Phase.FAILED]
    assert "NO_SUCH_BUCKET" in (missing.failure or "")
    assert "\n" not in (missing.failure or "")
    assert Tally(writing).read().counts.rows == ROWS
