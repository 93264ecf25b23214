"""Stores at an address where nobody listens."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.offline.inputs import expand
from pipeline.offline.refusals import StoreAway

pytestmark = pytest.mark.integration

PENSTOCK = Path(sys.executable).with_name("penstock")


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that is taken by somebody who does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_hub_that_refuses_connections_is_away(nobody: str, tmp_path: Path):
    """One line says so, the exit code says that it may be tried again, and nothing is left of the job."""
    models = json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"PENSTOCK_MODELS": models, "HF_ENDPOINT": f"http://{nobody}"}
    job = ("score", "hf://datasets/somebody/some/rows.jsonl", "-o", tmp_path / "out", "--task", "generate", "--column", "text")
    done = subprocess.run([PENSTOCK, *job], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 75, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: hf://datasets/somebody/some/rows.jsonl: cannot be reached: [Errno 111] Connection refused")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_googles_store_is_away_once_its_client_gives_up(nobody: str):
    """After the time that the address allows it; by itself it goes on for a quarter of an hour."""
    with pytest.raises(StoreAway, match=r"^gs://[^\n]+UNAVAILABLE[^\n]+$"):
        expand([f"gs://data/in?scheme=http&endpoint_override={nobody}&retry_limit_seconds=1"])
