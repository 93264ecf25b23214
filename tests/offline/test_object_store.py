"""Inputs in an object store: a real S3 server on this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs, parquet

from pipeline.offline.finalising import finalise
from pipeline.offline.plan import plan
from pipeline.offline.refusals import JobRefused
from tests.offline.conftest import Script, make_spec, outcome, run

pytestmark = pytest.mark.integration


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server, and the keys for it in the environment."""
    from moto.server import ThreadedMotoServer

    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


def test_a_job_over_objects(endpoint: str, tmp_path: Path):
    """Globs and partitions work as on a disk; an object that is written again is another input; no key is kept with the job."""
    store = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True)
    store.create_dir("data")
    for day in (1, 2):
        with store.open_output_stream(f"data/rows/day={day}/part.parquet") as file:
            parquet.write_table(pa.table({"text": [f"{day}-{row}" for row in range(5)]}), file)
    query = f"?endpoint_override={endpoint}&scheme=http&region=us-east-1"
    out = tmp_path / "out"
    job = plan(make_spec(), [f"s3://data/rows/day=*/*.parquet{query}"], out, 3)
    run(job, Script())
    finalise(job)
    assert [row["output"] for row in outcome(out.glob("data-*"))] == [f"{day}-{row}" for day in (1, 2) for row in range(5)]
    kept = b"".join(path.read_bytes() for path in out.rglob("*.json"))
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in kept
    folder = plan(make_spec(), [f"s3://data/rows{query}"], tmp_path / "other")
    assert [row["day"] for row in folder.schema.empty_table().to_pylist()] == []
    assert folder.schema.names == ["text", "day"]
    with store.open_output_stream("data/rows/day=2/part.parquet") as file:
        parquet.write_table(pa.table({"text": ["other"]}), file)
    with pytest.raises(JobRefused, match="has changed since the job was planned"):
        plan(make_spec(), [f"s3://data/rows/day=*/*.parquet{query}"], out)
