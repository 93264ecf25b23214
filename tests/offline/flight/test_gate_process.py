"""What a caller's largest messages do to a worker process."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offline.flight.test_door import TOKEN, tls
from tests.worker_process import WorkerProcess

__all__ = ["tls"]

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
GROWN_MIB = 32
"""More than a worker takes for what it refuses."""

ROWS = """
import sys
import numpy as np
import pyarrow as pa
from pyarrow import flight

client = flight.FlightClient(sys.argv[1].replace("unix://", "grpc+unix://"))
writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b'{"task": "generate", "model": "fake"}'))
rows = int(sys.argv[2]) // 8
batch = pa.record_batch([pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(np.zeros(rows, np.int64))])], ["row"])
writer.begin(batch.schema)
try:
    writer.write_batch(batch)
    writer.done_writing()
    reader.read_all()
except (pa.ArrowException, flight.FlightError) as error:
    print(type(error).__name__, error)
"""
ACTION = """
import sys
from pathlib import Path
import pyarrow as pa
from pyarrow import flight

client = flight.FlightClient(sys.argv[1], tls_root_certs=Path(sys.argv[3]).read_bytes())
try:
    list(client.do_action(flight.Action("welcome", bytes(int(sys.argv[2])))))
except (pa.ArrowException, flight.FlightError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("script", [ROWS, ACTION], ids=["rows", "action"])
def test_a_message_of_a_gigabyte_takes_no_memory_of_the_worker(tmp_path: Path, tls: dict[str, object], script: str):
    """Neither as a batch on the socket of this machine, nor from somebody on the network who has no token."""
    settings = {"PENSTOCK_TRANSPORT": "embedded", "PENSTOCK_MODELS": json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])}
    if script is ACTION:
        settings |= {"PENSTOCK_BULK__URL": "grpc+tls://127.0.0.1:0", "PENSTOCK_BULK__TOKEN": TOKEN}
        settings |= {f"PENSTOCK_BULK__{name.upper()}": str(tls[name]) for name in ("certificate", "key")}
    with WorkerProcess(tmp_path / "d", settings) as worker:
        door = json.loads(next(worker.data_dir.glob("worker-*.json")).read_text())["bulk"]
        command = [sys.executable, "-c", script, door]
        warm = subprocess.run([*command, str(MIB // 2), str(tls["certificate"])], capture_output=True, text=True, timeout=60, check=False)
        before_mib = worker.peak_mib()
        done = subprocess.run([*command, str(1024 * MIB), str(tls["certificate"])], capture_output=True, text=True, timeout=60, check=False)
        assert (warm.returncode, done.returncode) == (0, 0), warm.stderr + done.stderr
        assert re.search(r"a message has \d{10} bytes: send record batches of at most 1 MiB", done.stdout)
        assert worker.peak_mib() - before_mib < GROWN_MIB
        assert "bulk_caller_refused" in worker.log()
