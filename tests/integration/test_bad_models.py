"""A worker that is told to serve what cannot be served: it ends at once, with one line that says why."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.models import TINY
from tests.worker_process import PENSTOCK

pytestmark = pytest.mark.integration

WITHIN_S = 60.0
EXIT_CONFIG = 78


def edit(file: Path, **entries: object) -> None:
    """Adds entries to a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def claim_a_terabyte(folder: Path) -> None:
    """Names a weight of a terabyte in the file's header; nothing past the header is read before it is known to fit."""
    side = 2**19
    header = json.dumps({"w": {"dtype": "F32", "shape": [side, side], "data_offsets": [0, 4 * side * side]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no *.safetensors"),
    "a pickle only": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "its weights are pickled"),
    "code of its own": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "code.Model"}), "asks to run the model's own code (auto_map)"),
    "larger than memory": (claim_a_terabyte, "of free memory (bad: weights 1048576 MiB"),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("[]"), "its tokenizer cannot be read"),
}


def start(folder: Path, data_dir: Path) -> subprocess.Popen[str]:
    """Starts a worker over a log of its own on this machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    settings = {"TRANSPORT": "embedded", "DATA_DIR": str(data_dir), "HTTP__PORT": "0", "DTYPE": "float32"}
    environment |= {f"PENSTOCK_{name}": value for name, value in settings.items()} | {"HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [str(PENSTOCK), "worker", "--model", f"bad={folder}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Exit code, output and errors of a worker for each damage; they run side by side."""
    directory = tmp_path_factory.mktemp("models")
    processes = {}
    try:
        for number, (name, (damage, _)) in enumerate(DAMAGES.items()):
            folder = Path(shutil.copytree(TINY, directory / f"model-{number}"))
            damage(folder)
            processes[name] = start(folder, directory / f"data-{number}")
        said = {name: process.communicate(timeout=WITHIN_S) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return {name: (processes[name].returncode, *texts) for name, texts in said.items()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_that_cannot_be_served_ends_the_worker_with_one_line(ended, damage: str):
    """The exit code of a bad configuration, the reason in one structured line on stderr, and no traceback."""
    code, out, err = ended[damage]
    assert (code, out) == (EXIT_CONFIG, ""), err
    assert "Traceback" not in err
    events = [json.loads(line) for line in err.splitlines()]
    errors = [event for event in events if event["level"] not in {"info", "debug"}]
    assert [event["event"] for event in errors] == ["bad_configuration"]
    assert DAMAGES[damage][1] in errors[0]["detail"]
    assert "\n" not in errors[0]["detail"]
