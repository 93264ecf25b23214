"""The demo's second part: a small dataset, scored by `penstock score` on the worker that has just streamed."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cli.demo.lanes import MODEL
from pipeline.cli.demo.process import DemoFailed, DemoWorker
from pipeline.models import TINY

SENTENCES = (
    "Once upon a time there was a little fox who loved his kite.",
    "The old sailor was sad because he had lost his boat.",
    "Mia took the lantern and walked into the dark forest.",
    "The king was proud of his golden crown.",
    "A lonely robot wanted to find a friend.",
    "The owl was afraid of the dark, but she was careful.",
)
SCORE_S = 60.0
OPTIONS = ("--task", "score", "--column", "text", "--output-format", "jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What came of the dataset: where its rows lie, and the texts by how well the model can tell them, (perplexity, text)."""

    rows: int
    folder: Path
    texts: tuple[tuple[float, str], ...]


def texts() -> list[str]:
    """Every sentence as it is, and with its words in alphabetical order: to a model that knows the language, these are less likely."""
    return [text for sentence in SENTENCES for text in (sentence, " ".join(sorted(sentence.split(), key=str.lower)))]


def score(worker: DemoWorker) -> Scored:
    """Scores the dataset as a user would. Its folder stays: it is what the user is shown.

    Raises:
        DemoFailed: The command did not end well.
    """
    folder = Path(tempfile.mkdtemp(prefix="penstock-rows-"))
    dataset, output = folder / "texts.jsonl", folder / "scored"
    dataset.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()), encoding="utf-8")
    has_door = any(worker.data_dir.glob("bulk-*.sock"))  # the path of a socket is of bounded length, and that of a temporary folder is not
    through = ("--worker", "auto") if has_door else ()
    command = [sys.executable, "-m", "pipeline.cli", "score", str(dataset), "-o", str(output), "--model", f"{MODEL}={TINY}"]
    try:
        done = _run([*command, *OPTIONS, *through, "--json"], worker)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"penstock score did not end within {SCORE_S:g} s") from None
    if done.returncode != 0:
        raise DemoFailed(f"penstock score ended with {done.returncode}\n{done.stderr}")
    rows = [row for file in sorted(output.glob("data-*.jsonl")) for row in _read(file)]
    return Scored(rows=len(rows), folder=output, texts=tuple(sorted((row["perplexity"], row["text"]) for row in rows)))


def _run(command: list[str], worker: DemoWorker) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 -- our own program
        command,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PENSTOCK_DATA_DIR": str(worker.data_dir)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SCORE_S,
        check=False,
    )


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
