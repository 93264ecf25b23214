"""Inputs and results in an object store: a real S3 server on this machine."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.offline.apart import OwnFiles
from pipeline.offline.finalising import finalise
from pipeline.offline.inputs import expand
from pipeline.offline.plan import plan
from pipeline.offline.refusals import JobRefused
from schemas.outcome import Manifest
from tests.object_store import BUCKET, ObjectStore, object_store
from tests.offline.conftest import Script, make_spec, outcome, run
from tests.offline.test_score_process import JOB, ROWS, dataset, finish, names, start

__all__ = ["dataset", "object_store"]

pytestmark = pytest.mark.integration


def test_a_job_over_objects(object_store: ObjectStore, tmp_path: Path):
    """Globs, partitions and odd names work as on a disk; an object that is written again is another input; no key is kept with the job."""
    store, query = object_store.filesystem, object_store.query
    for day in (1, 2):
        with store.open_output_stream(f"data/my rows/day={day}/part.parquet") as file:
            parquet.write_table(pa.table({"text": [f"{day}-{row}" for row in range(5)]}), file)
    out = tmp_path / "out"
    job = plan(make_spec(), [f"s3://data/my%20rows/day=*/*.parquet{query}"], out, 3)
    run(job, Script())
    finalise(job)
    assert [row["output"] for row in outcome(out.glob("data-*"))] == [f"{day}-{row}" for day in (1, 2) for row in range(5)]
    kept = b"".join(path.read_bytes() for path in out.rglob("*.json"))
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in kept
    folder = plan(make_spec(), [f"s3://data/my%20rows{query}"], tmp_path / "other")
    assert [row["day"] for row in folder.schema.empty_table().to_pylist()] == []
    assert folder.schema.names == ["text", "day"]
    with store.open_output_stream("data/my rows/day=2/part.parquet") as file:
        parquet.write_table(pa.table({"text": ["other"]}), file)
    with pytest.raises(JobRefused, match="has changed since the job was planned"):
        plan(make_spec(), [f"s3://data/my%20rows/day=*/*.parquet{query}"], out)


def test_results_in_a_store_among_the_inputs_are_no_inputs(object_store: ObjectStore, tmp_path: Path):
    """Also where the input's address names the server otherwise than that of the results does."""
    with object_store.filesystem.open_output_stream(f"{BUCKET}/in/rows.parquet") as file:
        parquet.write_table(pa.table({"text": ["a", "b"]}), file)
    inputs, out = [f"s3://{BUCKET}/in{object_store.query}"], f"s3://{BUCKET}/in/out{object_store.query}"
    job = plan(make_spec(), inputs, tmp_path / "work", store=out)
    run(job, Script())
    finalise(job)
    assert plan(make_spec(), inputs, tmp_path / "work", store=out).plan == job.plan
    other = f"s3://{BUCKET}/**/*?scheme=http&endpoint_override={object_store.address}"
    assert len(expand([other.replace("**/*", "**/*.parquet")])) == 2
    assert [source.path for source in expand([other], own=OwnFiles(job.folder))] == [f"{BUCKET}/in/rows.parquet"]


def rows_at(store: ObjectStore, files: list[str]) -> list[int]:
    """Ids of rows in files of results, in order."""
    return [row for name in files for row in parquet.read_table(f"{BUCKET}/out/{name}", filesystem=store.filesystem)["id"].to_pylist()]


def test_killed_while_it_uploads_the_same_command_finishes_the_job(
    object_store: ObjectStore, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In the middle of the claim, of files of results, of the manifest: each row is there once, in files of an undisturbed run, and no key kept."""
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "state"))
    out, calm = f"s3://{BUCKET}/out{object_store.query}", tmp_path / "calm"
    object_store.filesystem.create_dir(f"{BUCKET}/out")  # as consoles do: an empty object marks the folder
    said = ""
    for name in ("_owner-", "data-0000002-", "errors-0000004-", "manifest.json"):
        object_store.hold(lambda method, path, name=name: method == "PUT" and path.startswith(f"/{BUCKET}/out/{name}"))
        process = start(dataset, "-o", out, *JOB)
        assert object_store.held.wait(60.0), process.communicate()
        process.kill()
        said += str(process.communicate())
        assert not [found for found in object_store.names("out") if found.startswith(name)]
        object_store.release()
    code, shown, err = finish(start(dataset, "-o", out, *JOB))
    assert code == 3, err
    assert f"rows in s3://{BUCKET}/out/data-*?endpoint_override=" in shown
    assert finish(start(dataset, "-o", calm, *JOB))[0] == 3
    there = object_store.names("out")
    assert [name for name in there if name.startswith(("data-", "errors-"))] == names(calm)
    assert len(there) == len(names(calm)) + 2  # the claim and the manifest
    with object_store.filesystem.open_input_stream(f"{BUCKET}/out/manifest.json") as file:
        manifest = Manifest.model_validate_json(file.read())
    assert rows_at(object_store, [file.name for file in manifest.data]) == [row for row in range(ROWS) if row % 97 != 5]
    assert rows_at(object_store, [file.name for file in manifest.errors]) == [row for row in range(ROWS) if row % 97 == 5]
    kept = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert not any(b"hidden" in content for content in kept)
    assert "hidden" not in said + shown + err
    assert not list((tmp_path / "state").rglob("data-*"))


def test_what_a_store_does_not_let_in_is_said_in_one_line(object_store: ObjectStore, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before anything is computed where nothing can be put at all; later on nothing is lost, and the same command goes on."""
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "state"))
    code, _, err = finish(start(dataset, "-o", f"s3://missing/out{object_store.query}", *JOB))
    assert (code, err.count("\n")) == (1, 1), err
    assert "NO_SUCH_BUCKET" in err
    object_store.deny(lambda method, path: method == "POST" and "/data-0000003-" in path)
    out = f"s3://{BUCKET}/out{object_store.query}"
    code, _, err = finish(start(dataset, "-o", out, *JOB))
    assert code == 75, err
    last = err.splitlines()[-1]
    assert "ACCESS_DENIED" in last
    assert last.endswith("the same command goes on from here")
    assert "Traceback" not in err
    object_store.deny(lambda _method, _path: False)
    code, _, err = finish(start(dataset, "-o", out, *JOB))
    assert code == 3, err
    assert "manifest.json" in object_store.names("out")
