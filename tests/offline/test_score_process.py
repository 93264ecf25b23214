"""`penstock score` as a process of its own, killed, stopped and started again."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.models import TINY
from tests.offline.conftest import outcome
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

PENSTOCK = Path(sys.executable).with_name("penstock")
WAIT_S = 60.0
FAKE = {
    "PENSTOCK_MODELS": json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}]),
    "PENSTOCK_OFFLINE__SHARD_ROWS": "150",
}
ROWS = 1_000
JOB = ("--task", "generate", "--column", "text", "--max-tokens", "50", "--ignore-eos")


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Starts a job with the fake engine."""
    return subprocess.Popen([PENSTOCK, "score", *map(str, arguments)], env=os.environ | FAKE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Waits for its end."""
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out.decode(), err.decode()


def wait_in(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    """Waits until the job, which goes on, has come that far."""

    def holds() -> bool:
        assert process.poll() is None, process.communicate()
        return condition()

    wait_for(holds)


def commits(out: Path) -> list[Path]:
    """Shards that are done."""
    return sorted((out / "commits").glob("[0-9]*.json"))


def names(out: Path) -> list[str]:
    """Files of results; a name holds its content's hash."""
    return sorted(path.name for path in out.iterdir() if path.name.startswith(("data-", "errors-")))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Rows of which some repeat, some have no prompt."""
    path = tmp_path / "rows.parquet"
    text = [None if row % 97 == 5 else f"row {row % 900} " * (1 + row % 7) for row in range(ROWS)]
    parquet.write_table(pa.table({"id": range(ROWS), "text": text}), path, row_group_size=333)
    return path


def test_killed_three_times_the_same_command_finishes_the_job(dataset: Path, tmp_path: Path):
    """SIGKILL in the middle: finished shards are not touched, and the result is that of an undisturbed run, to the byte."""
    out, calm = tmp_path / "out", tmp_path / "calm"
    kept: dict[Path, int] = {}
    for round_ in range(3):
        process = start(dataset, "-o", out, *JOB)
        before = len(kept) // 2
        wait_in(process, lambda before=before: len(commits(out)) > before)
        process.kill()
        process.communicate()
        for path, written_ns in kept.items():
            assert path.stat().st_mtime_ns == written_ns, round_
        named = {file for path in commits(out) for file in (json.loads(path.read_bytes())["data"]["name"],)}
        kept = {path: path.stat().st_mtime_ns for path in [*commits(out), *(out / name for name in named)]}
    code, _, err = finish(start(dataset, "-o", out, *JOB))
    assert code == 3, err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert finish(start(dataset, "-o", calm, *JOB))[0] == 3
    assert names(out) == names(calm)
    rows, errors = outcome(out.glob("data-*")), outcome(out.glob("errors-*"))
    assert [row["id"] for row in rows] == [row for row in range(ROWS) if row % 97 != 5]
    assert [row["id"] for row in errors] == [row for row in range(ROWS) if row % 97 == 5]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_in_good_order_and_the_same_command_goes_on(dataset: Path, tmp_path: Path, number: signal.Signals, code: int):
    """The exit code tells the signal; nothing is under suspicion afterwards, and nothing is lost."""
    out = tmp_path / "out"
    process = start(dataset, "-o", out, *JOB)
    wait_in(process, lambda: len(commits(out)) >= 1)
    process.send_signal(number)
    ended, _, err = finish(process)
    assert ended == code, err
    assert "goes on from here" in err
    assert all(b"released" in path.read_bytes() for path in (out / "journal").glob("*.flight"))
    ended, said, _ = finish(start(dataset, "-o", out, *JOB, "--json"))
    assert ended == 3
    assert json.loads(said)["data_rows"] + json.loads(said)["error_rows"] == ROWS


KILLER = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from pipeline.offline.plan import open_job
    from pipeline.offline.finalising import finalise
    from tests.offline.conftest import Script, run

    class Deadly(Script):
        def poll(self):
            if any("row 11 " in ask.text for _, ask in self.flying):
                os._exit(9)
            return super().poll()

    job = open_job(Path(sys.argv[1]))
    run(job, Deadly(depth=4))
    finalise(job)
""")


def test_a_row_that_ends_the_process_is_named_and_set_aside(tmp_path: Path):
    """The process is gone without a word each time; the journal alone tells who it was."""
    from pipeline.offline.plan import plan
    from tests.offline.conftest import make_spec, texts

    out, source = tmp_path / "out", tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"id": range(16), "text": texts(16)}), source)
    plan(make_spec(), [str(source)], out)
    codes = []
    while not codes or (codes[-1] == 9 and len(codes) < 12):
        codes.append(subprocess.run([sys.executable, "-c", KILLER, out], cwd=Path(__file__).parents[2], check=False, capture_output=True).returncode)
    assert codes[-1] == 0, codes
    assert [(row["id"], row["error_code"]) for row in outcome(out.glob("errors-*"))] == [(11, "engine_error")]
    assert [row["id"] for row in outcome(out.glob("data-*"))] == [row for row in range(16) if row != 11]


def test_outputs_are_those_of_generate_alone(tmp_path: Path):
    """With the model that ships: every row once, in order, token for token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = [f"Tell me a story about a {thing} and a {other}" for thing in ("cat", "boat", "mill") for other in ("river", "girl", "dog", "bell")]
    prompts[5] = ""
    path, out = tmp_path / "rows.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps({"n": number, "text": prompt}) + "\n" for number, prompt in enumerate(prompts)))
    command = [PENSTOCK, "score", path, "-o", out, "--task", "generate", "--model", f"tiny={TINY}", "--template", "{{ text }}"]
    done = subprocess.run([*command, "--max-tokens", "12", "--dtype", "float32"], capture_output=True, check=False, timeout=100)
    assert done.returncode == 3, done.stderr.decode()
    tokenizer, model = AutoTokenizer.from_pretrained(TINY), AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    rows = outcome(out.glob("data-*"))
    assert [row["n"] for row in rows] == [n for n in range(12) if n != 5]
    for row in rows:
        ids = tokenizer(row["text"], return_tensors="pt")
        alone = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
        assert row["output_token_ids"] == alone
        assert row["output"] == tokenizer.decode(alone, skip_special_tokens=True)
        assert (row["prompt_tokens"], row["output_tokens"]) == (ids["input_ids"].shape[1], len(alone))
