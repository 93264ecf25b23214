"""Background jobs whose results go to a real S3 server, with those who upload them killed."""

import json
import os
import signal
from pathlib import Path

import pytest
from pyarrow import parquet

from schemas.outcome import Manifest
from tests.jobs.processes import plant
from tests.jobs.test_kills import ROWS, SHARD_ROWS, TASK, is_bad, rows
from tests.object_store import BUCKET, ObjectStore, object_store

__all__ = ["object_store", "rows"]

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_job_survives_the_death_of_those_who_upload(rows: Path, tmp_path: Path, object_store: ObjectStore):
    """Celery's children die in the middle of a file and of the manifest; every row is there exactly once, and nobody had to help."""
    out = f"s3://{BUCKET}/out{object_store.query}"
    may_write = {"PENSTOCK_JOBS__OUTPUT_STORES": json.dumps([f"s3://{BUCKET}{object_store.query}"])}
    with plant(tmp_path / "plant", shard_rows=SHARD_ROWS, **may_write) as running:
        running.worker.spawn()
        running.celery.start()
        refused = running.penstock("jobs", "submit", rows, "-o", f"s3://other/out{object_store.query}", *TASK)
        assert "jobs.output_stores" in refused.stderr
        for name in ("data-0000003-", "manifest.json"):
            object_store.hold(lambda method, path, name=name: method == "PUT" and path.startswith(f"/{BUCKET}/out/{name}"))
            if name.startswith("data-"):
                job = running.submit(rows, "-o", out, *TASK)
            assert object_store.held.wait(60.0), running.logs()
            for pid in running.celery.children():
                os.kill(pid, signal.SIGKILL)
            object_store.release()
        ended = running.penstock("jobs", "watch", job, "--json")
        assert ended.returncode == 3, running.logs()
        listed = running.penstock("jobs", "results", job).stdout.split()
        assert running.celery.stop() == 0
    read = [parquet.read_table(uri.removeprefix("s3://").partition("?")[0], filesystem=object_store.filesystem) for uri in listed]
    assert [row for table in read for row in table["id"].to_pylist()] == [row for row in range(ROWS) if not is_bad(row)]
    with object_store.filesystem.open_input_stream(f"{BUCKET}/out/manifest.json") as file:
        manifest = Manifest.model_validate_json(file.read())
    assert (manifest.planned_rows, manifest.data_rows + manifest.error_rows) == (ROWS, ROWS)
    there = [name for name in object_store.names("out") if not name.startswith("_owner-") and name != "manifest.json"]
    assert there == sorted(file.name for file in (*manifest.data, *manifest.errors))
