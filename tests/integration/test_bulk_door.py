"""Rows of datasets through the door of a worker process."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from penstock import Client
from pipeline.arrow_memory import WORKER_MIB
from pipeline.settings import load
from tests.offline.conftest import outcome
from tests.waiting import wait_for
from tests.worker_process import PENSTOCK, WorkerProcess

pytestmark = pytest.mark.integration

ROWS = 500


def test_a_job_outlives_its_worker(tmp_path: Path):
    """Killed amid the rows, and another one started on the same data folder: every row once, and nobody is convicted."""
    source, out = tmp_path / "rows.parquet", tmp_path / "out"
    parquet.write_table(pa.table({"id": range(ROWS), "text": [f"row {n}" for n in range(ROWS)]}), source)
    settings = {"PENSTOCK_TRANSPORT": "embedded", "PENSTOCK_MODELS": json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])}
    with WorkerProcess(tmp_path / "d", settings | {"PENSTOCK_ENGINE__MAX_SEQUENCES": "4"}) as worker:
        job = ("--task", "generate", "--column", "text", "--max-tokens", "200", "--ignore-eos", "--worker", "auto", "--data-dir", worker.data_dir)
        process = subprocess.Popen([PENSTOCK, "score", source, "-o", out, *job], stderr=subprocess.PIPE, env=worker._environment)
        wait_for(lambda: worker.metrics().get('penstock_bulk_rows_total{outcome="ok"}', 0) > 20)
        worker.kill()
        worker.start()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    assert "The worker died" in said.decode() or "the worker died" in said.decode()
    assert [row["id"] for row in outcome(out.glob("data-*"))] == list(range(ROWS))


def test_rows_wait_outside_while_live_requests_are_too_many(tmp_path: Path):
    """A worker with more live requests than may wait takes no rows, says why, and takes them when it has caught up."""
    source, out = tmp_path / "rows.parquet", tmp_path / "out"
    parquet.write_table(pa.table({"id": range(50), "text": [f"row {n}" for n in range(50)]}), source)
    settings = {
        "PENSTOCK_TRANSPORT": "embedded",
        "PENSTOCK_MODELS": json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}]),
        "PENSTOCK_ENGINE__MAX_SEQUENCES": "1",
        "PENSTOCK_LIMITS__WAITING_REQUESTS": "2",
    }
    with WorkerProcess(tmp_path / "d", settings) as worker, Client(load({"transport": "embedded", "data_dir": worker.data_dir})) as client:
        names = [f"live-{n}" for n in range(7)]
        body = {"model": "fake", "max_tokens": 2_000, "ignore_eos": True}
        live = [client.submit(body | {"prompt": name}, url="/v1/completions", custom_id=name) for name in names]
        wait_for(lambda: worker.metrics()["penstock_requests_waiting"] >= 2)
        job = ("--task", "generate", "--column", "text", "--max-tokens", "2", "--worker", "auto", "--data-dir", worker.data_dir)
        process = subprocess.Popen([PENSTOCK, "score", source, "-o", out, *job], stderr=subprocess.PIPE, env=worker._environment)
        seen: list[dict[str, float]] = []

        def yields() -> bool:
            seen.append(worker.metrics())
            return seen[-1].get('penstock_bulk_yielding{reason="queue"}') == 1

        wait_for(yields)
        assert seen[-1]["penstock_bulk_rows_running"] == 0
        assert 'penstock_bulk_rows_total{outcome="ok"}' not in seen[-1]
        assert [(handle.result().usage or {})["completion_tokens"] for handle in live] == [2_000] * len(names)
        _, said = process.communicate(timeout=60)
        assert worker.metrics()['penstock_bulk_yielding{reason="queue"}'] == 0
    assert process.returncode == 0, said.decode()
    assert len(outcome(out.glob("data-*"))) == 50


BOMB = """
import sys
import numpy as np
import pyarrow as pa
from pyarrow import flight

door, codec, mib = sys.argv[1].replace("unix://", "grpc+unix://"), sys.argv[2], int(sys.argv[3])
client = flight.FlightClient(door)
wanted = b'{"task": "generate", "model": "fake"}'
writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(wanted))
rows = mib * 2**20 // 8
batch = pa.record_batch([pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(np.zeros(rows, np.int64))])], ["row"])
writer.begin(batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec))
writer.write_batch(batch)
writer.done_writing()
try:
    reader.read_all()
except (pa.ArrowException, flight.FlightError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("codec", "mib"), [("zstd", 1_500), ("lz4", 600), ("zstd", 100)])
def test_a_batch_that_unpacks_to_more_than_a_worker_has_is_refused_before_it_does(tmp_path: Path, codec: str, mib: int):
    """Some kilobytes that stand for gigabytes take no memory, and the worker serves others as before; so do those just below its bound."""
    settings = {"PENSTOCK_TRANSPORT": "embedded", "PENSTOCK_MODELS": json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])}
    with WorkerProcess(tmp_path / "d", settings) as worker:
        before_mib = worker.peak_mib()
        card = json.loads(next(worker.data_dir.glob("worker-*.json")).read_text())
        done = subprocess.run([sys.executable, "-c", BOMB, card["bulk"], codec, str(mib)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert ("more memory than the door has" if mib > WORKER_MIB else "more than 1048576 bytes") in done.stdout
        assert worker.peak_mib() - before_mib < WORKER_MIB + 64
        assert "bulk_door_unbounded" not in worker.log()
        source, out = tmp_path / "rows.jsonl", tmp_path / "out"
        source.write_text('{"text": "row"}\n')
        job = ("--task", "generate", "--column", "text", "--worker", "auto", "--data-dir", worker.data_dir)
        assert subprocess.run([PENSTOCK, "score", source, "-o", out, *job], check=False, capture_output=True, timeout=60).returncode == 0
