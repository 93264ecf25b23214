"""The rows of a Daft pipeline through the door of a worker process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.engine.loading import load
from pipeline.models import TINY
from pipeline.offline.answer import Answer
from pipeline.offline.engine_scorer import EngineScorer
from pipeline.offline.prompts import Asking
from pipeline.settings import DeviceChoice, DtypeChoice, EngineSettings, ModelSettings
from schemas.job import SamplingSpec
from tests.offline.conftest import make_spec
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).with_name("daft_pipeline.py")
SAMPLING = SamplingSpec(max_tokens=8, temperature=0.0, ignore_eos=True)
TEXTS = [f"Tell me a story about number {n} " * (1 + n % 3) for n in range(100)]
BAD = {17: None, 40: "", 63: "word " * 5_000}


def directly(texts: list[str]) -> list[Answer]:
    """What the engine makes of the texts, without a worker or a door."""
    engine = load(ModelSettings(name="tiny", source=str(TINY)), EngineSettings(), device=DeviceChoice.CPU, dtype=DtypeChoice.FLOAT32)
    spec = make_spec(sampling=SAMPLING)
    scorer, asking = EngineScorer(engine, spec.task, max_sequences=8, attempts=1), Asking(spec)
    scorer.submit([(row, asking.ask(row, (0, 0, row), {"text": text})) for row, text in enumerate(texts)])
    done: dict[int, Answer] = {}
    while len(done) < len(texts):
        done.update((scored.ticket, scored.answer) for scored in scorer.poll())
    return [done[row] for row in range(len(texts))]


def test_a_daft_pipeline_gets_what_the_engine_gives(tmp_path: Path):
    """Every row in its place and as the engine answers it alone; the three that no model can answer say why, and cost no other row."""
    texts = [BAD.get(n, text) for n, text in enumerate(TEXTS)]
    source, out = tmp_path / "rows.parquet", tmp_path / "told.parquet"
    parquet.write_table(pa.table({"id": range(len(texts)), "text": texts}), source)
    settings = {
        "PENSTOCK_TRANSPORT": "embedded",
        "PENSTOCK_DTYPE": "float32",
        "PENSTOCK_MODELS": json.dumps([{"name": "tiny", "source": str(TINY)}]),
    }
    with WorkerProcess(tmp_path / "d", settings) as worker:
        (card,) = worker.data_dir.glob("worker-*.json")
        door = json.loads(card.read_text())["bulk"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")} | {"DO_NOT_TRACK": "true"}
        done = subprocess.run([sys.executable, PROGRAM, door, source, out], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        counted = {name: value for name, value in worker.metrics().items() if name.startswith("penstock_bulk_rows_total")}
    rows = parquet.read_table(out).to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == list(enumerate(texts))
    assert {row["id"]: row["error_code"] for row in rows if row["error_code"]} == {
        17: "invalid_request",
        40: "invalid_request",
        63: "prompt_too_long",
    }
    good = [row for row in rows if row["id"] not in BAD]
    assert counted['penstock_bulk_rows_total{outcome="ok"}'] == len(good)
    for row, expected in zip(good, directly([row["text"] for row in good]), strict=True):
        assert (row["output"], row["output_token_ids"]) == (expected.values["output"], expected.values["output_token_ids"])
        assert (row["finish_reason"], row["prompt_tokens"], row["output_tokens"]) == ("length", expected.prompt_tokens, 8)
