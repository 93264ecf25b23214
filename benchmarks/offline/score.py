"""`penstock score` in a process of its own: the real command, files in, files out."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failed
from benchmarks.offline.inputs import COLUMN, MAX_TOKENS
from benchmarks.offline.ran import Ran
from benchmarks.offline.usage import cpu_s
from pipeline.offline.folder import Folder
from pipeline.openmp import VARIABLES
from schemas.outcome import Manifest

PENSTOCK = Path(sys.executable).with_name("penstock")
LOOK_S = 0.02
LEFT_OUT = frozenset({*VARIABLES, "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"})
"""Of the environment: how threads wait is everybody's own choice, and compiled modules are kept."""
TASK = {"embed": (), "generate": ("--max-tokens", str(MAX_TOKENS))}


def options(task: str, model: Path, source: Path, out: Path, dtype: str = "float32") -> list[str]:
    """What both commands take."""
    job = [str(source), "-o", str(out), "--task", task, "--column", COLUMN, *TASK[task]]
    return [*job, "--model", f"model={model}", "--dtype", dtype]


def environment(data_dir: Path) -> dict[str, str]:
    """Nothing of whoever runs the benchmark, but what is said here; kernels are there before a row is, as in the steady state."""
    inherited = {name: value for name, value in os.environ.items() if name not in LEFT_OUT and not name.startswith("PENSTOCK_")}
    own = {"PENSTOCK_DATA_DIR": str(data_dir), "PENSTOCK_ENGINE__COMPILE": "before", "PENSTOCK_LOG__LEVEL": "WARNING"}
    return inherited | {"HF_HUB_OFFLINE": "1"} | own


@dataclass(frozen=True, slots=True)
class Score:
    """The command, for one task and model."""

    task: str
    model: Path
    environment: Mapping[str, str]
    dtype: str = "float32"

    def run(self, source: Path, out: Path) -> Ran:
        """Runs it once."""
        folder = Folder(out)
        marks = (lambda: any(folder.journal.glob("*.lock")), folder.manifest_file.exists)
        command = [str(PENSTOCK), "score", *options(self.task, self.model, source, out, self.dtype)]
        spent = run(command, self.environment, out.with_name(f"{out.name}.log"), marks)
        manifest = ended(folder)
        return Ran(
            scoring_s=scoring_s(folder),
            scoring_cpu_s=spent.between_cpu_s,
            process_s=spent.wall_s,
            process_cpu_s=spent.cpu_s,
            results=results(manifest, out),
            tokens=manifest.usage.prompt_tokens + manifest.usage.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process took, and what of the processors it had between its two marks."""

    wall_s: float
    cpu_s: float
    between_cpu_s: float


def run(command: Sequence[str], environment: Mapping[str, str], log: Path, marks: Sequence[Callable[[], bool]] = ()) -> Spent:
    """Runs a command to its end, and looks when it passes the marks: at the first and the last its processor time is read.

    Raises:
        Failed: It ended badly.
    """
    started_s = time.perf_counter()
    at_marks_s: list[float] = []
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if len(at_marks_s) < len(marks) and marks[len(at_marks_s)]():
                at_marks_s.append(cpu_s(process.pid))
            time.sleep(LOOK_S)
    except BaseException:
        process.kill()
        process.wait()
        raise
    wall_s = time.perf_counter() - started_s
    if len(at_marks_s) < len(marks) and marks[len(at_marks_s)]():  # between the last look and its end
        at_marks_s.append(cpu_s(process.pid))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or len(at_marks_s) < len(marks):
        raise Failed(f"{' '.join(command[:2])} ended with {process.returncode}: {log.read_text(encoding='utf-8', errors='replace')[-2_000:]}")
    return Spent(wall_s, usage.ru_utime + usage.ru_stime, at_marks_s[-1] - at_marks_s[0] if at_marks_s else 0.0)


def scoring_s(folder: Folder) -> float:
    """From the first row taken, as the commits tell, to the manifest written."""
    commits = [folder.commit(int(path.stem)) for path in folder.commits.glob("[0-9]*.json")]
    started_ms = min(commit.started_ms for commit in commits if commit is not None)
    return folder.manifest_file.stat().st_mtime - started_ms / 1_000


def ended(folder: Folder) -> Manifest:
    """What became of a job whose rows are all well.

    Raises:
        Failed: The job is not over, or rows of it failed.
    """
    manifest = folder.manifest()
    if manifest is None or manifest.error_rows:
        raise Failed("there is no manifest" if manifest is None else f"{manifest.error_rows} rows failed: {manifest.error_codes}")
    return manifest


def results(manifest: Manifest, out: Path) -> tuple[Path, ...]:
    """The files of results, in the order of rows."""
    return tuple(out / file.name for file in manifest.data)
