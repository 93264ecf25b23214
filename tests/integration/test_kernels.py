"""A worker on a machine where no kernel is compiled yet: it serves at once, and faster when they are there."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from penstock import Client
from pipeline.engine.vectors import AVX2, lanes
from pipeline.models import TINY
from tests.waiting import wait_for
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

WAIT_S = 60.0
PROMPT = [17, 401, 23, 999, 56, 1200, 3]
MAX_TOKENS = 24
KERNELS = [*(["product"] if lanes() == AVX2 else []), "rotation", "gating", "rms_norm", "keep", "decode"]
"""What the model wants, in that order; products are left to oneDNN where vectors are wider."""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker on a log of its own, whose folder for kernels is empty; not started."""
    process = WorkerProcess(
        tmp_path / "worker", {"PENSTOCK_TRANSPORT": "embedded", "PENSTOCK_DTYPE": "float32", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    )
    process.spawn()
    yield process
    process.kill()


def compiler_of(worker: WorkerProcess) -> int:
    """Waits for the process that compiles for a worker, at lower priority than that."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        for process in Path("/proc").iterdir():
            if process.name.isdecimal() and is_compiler(process, worker.process.pid):
                return int(process.name)
        assert worker.process.poll() is None, worker.log()
        time.sleep(0.02)
    raise AssertionError(f"nothing is compiled:\n{worker.log()}")


def is_compiler(process: Path, parent: int) -> bool:
    """Tells whether it compiles, as the child of that one, to which it gives way."""
    try:
        is_child = b"pipeline.engine.compiling" in (process / "cmdline").read_bytes() and f"PPid:\t{parent}\n" in (process / "status").read_text()
        return is_child and os.getpriority(os.PRIO_PROCESS, int(process.name)) > os.getpriority(os.PRIO_PROCESS, parent)
    except OSError:  # it has ended
        return False


def lives(pid: int) -> bool:
    """Tells whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def in_use(worker: WorkerProcess) -> list[str]:
    """The kernels that the worker says it uses."""
    events = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
    return [event["kernel"].split()[0] for event in events if event["event"] == "kernel_in_use"]


def test_a_worker_answers_before_its_kernels_are_compiled_and_uses_them_from_then_on(worker):
    """While nothing can be compiled it is ready and right; when everything is, its log says so, and its answer is the same."""
    compiler = compiler_of(worker)
    os.kill(compiler, signal.SIGSTOP)
    worker.wait_ready()
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_TOKENS, eos_token_id=-1, pad_token_id=0)
    expected = (tuple(out[0, len(PROMPT) :].tolist()),)
    with Client.embedded(worker.data_dir, timeout_s=WAIT_S) as client:
        asked = {"model": "tiny", "temperature": 0, "max_tokens": MAX_TOKENS, "ignore_eos": True, "stream": True}
        assert client.complete(PROMPT, **asked).token_ids == expected
        assert in_use(worker) == []
        os.kill(compiler, signal.SIGCONT)
        wait_for(lambda: len(in_use(worker)) == len(KERNELS), why=lambda: f"{in_use(worker)}:\n{worker.log()}")
        assert in_use(worker) == KERNELS
        assert client.complete(PROMPT, **asked).token_ids == expected
    assert worker.stop() == 0


def test_a_worker_that_stops_takes_the_process_that_compiles_along(worker):
    """SIGTERM while it compiles, on a worker that serves: both are gone, and the log warns of nothing."""
    compiler = compiler_of(worker)
    os.kill(compiler, signal.SIGSTOP)  # so that it is compiling for as long as this takes
    worker.wait_ready()
    assert lives(compiler)
    assert worker.stop() == 0
    assert not lives(compiler)
    assert "warning" not in worker.log()
