"""The command: which models, peers and loads; rounds; tables and JSON."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import benchmarks.engine as package
from benchmarks.child import Failed, exit_when_terminated
from benchmarks.engine import contenders, peers
from benchmarks.engine.contenders.base import Setup
from benchmarks.engine.limits import Machine, least, size_of
from benchmarks.engine.loads import Load, asks, loads
from benchmarks.engine.models import NAMES, folder_of
from benchmarks.engine.probe import probe
from benchmarks.engine.process import Process
from benchmarks.engine.table import Results, columns, ratios, row
from benchmarks.report import OUT, show, write
from pipeline.engine.resources import has_native_bfloat16

NUMBER_BYTES = {"float32": 4, "bfloat16": 2}


def main() -> None:
    """Prepares, or measures and publishes."""
    exit_when_terminated()
    arguments = _arguments()
    if arguments.prepare:
        peers.prepare()
        return
    models = [_model(name, arguments) for name in arguments.models]
    write(
        "engine",
        {"dtype": arguments.dtype, "threads": arguments.threads, "rounds": arguments.rounds, "models": models},
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=package.__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make the environment of vLLM under .cache/peers, and exit")
    parser.add_argument("--models", type=_names(NAMES), default=list(NAMES), help=f"of {', '.join(NAMES)}; all by default")
    others = [name for name in contenders.MODULES if name != contenders.OURS]
    parser.add_argument("--peers", type=_names(others), default=others, help=f"of {', '.join(others)}; all by default; '' for none")
    parser.add_argument("--loads", type=lambda text: [int(n) for n in text.split(",")], default=[64, 8, 1], help="requests at a time: 64,8,1")
    parser.add_argument("--count", type=int, default=64, help="requests of the largest load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=sorted(NUMBER_BYTES), default=_native(), help="of all; default: bfloat16 where the processor has it")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the peers and of the probe; ours chooses, as a worker does"
    )
    return parser.parse_args()


def _native() -> str:
    """Without instructions for it, products in bfloat16 are a hundred times slower than in float32, for every contender."""
    return "bfloat16" if has_native_bfloat16() else "float32"


def _names(known: Sequence[str]) -> Any:
    def names(text: str) -> list[str]:
        given = [name for name in text.split(",") if name]
        if unknown := set(given) - set(known):
            raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; there is {', '.join(known)}")
        return given

    return names


def _model(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures all contenders with one model and shows the tables."""
    folder = folder_of(name)
    work = loads(arguments.loads, arguments.count)
    before = probe(arguments.dtype, arguments.threads)
    results = {who: Results() for who in (contenders.OURS, *arguments.peers)}
    for number in range(arguments.rounds):
        order = list(results)
        for who in order[number % len(order) :] + order[: number % len(order)]:
            _round(who, results[who], _setup(folder, work, arguments), work, OUT / f"engine-{name}-{who}.log")
    after = probe(arguments.dtype, arguments.threads)
    machine = Machine(bytes_per_s=max(before.bytes_per_s, after.bytes_per_s), flops=max(before.flops, after.flops))
    return {"model": name, "machine": asdict(machine), "loads": [_publish(name, load, folder, results, machine, arguments) for load in work]}


def _setup(folder: Path, work: Sequence[Load], arguments: argparse.Namespace) -> Setup:
    sizes = [[len(ask.prompt_ids) + ask.max_tokens for ask in asks(load)] for load in work]
    return Setup(
        folder=str(folder),
        dtype=arguments.dtype,
        threads=arguments.threads,
        max_sequences=max(load.concurrent for load in work),
        max_tokens_each=max(map(max, sizes)) + 1,
        max_tokens_all=max(map(sum, sizes)),
    )


def _round(who: str, results: Results, setup: Setup, work: Sequence[Load], log: Path) -> None:
    """One contender: start, all loads, exit. One that failed once is not tried again."""
    if results.reason is not None:
        return
    OUT.mkdir(exist_ok=True)
    try:
        with Process(who, setup, log) as process:
            results.start_s.append(process.start_s)
            for load in work:
                ran = process.run(asks(load), load.concurrent)
                results.rounds.setdefault(load.name, []).append(ran)
                print(f"{Path(setup.folder).name}, {load.name}, {who}: {ran.measured.tokens_per_s:,.1f} tokens/s", flush=True)
    except Failed as failed:
        results.reason = str(failed)
        print(f"{Path(setup.folder).name}, {who}: {failed}", flush=True)


def _publish(name: str, load: Load, folder: Path, results: dict[str, Results], machine: Machine, arguments: argparse.Namespace) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    requests = asks(load)
    floor = least(size_of(config, NUMBER_BYTES[arguments.dtype]), machine, requests, load.concurrent)
    rows = columns([row(who, of, load.name, floor, machine) for who, of in results.items()])
    show(f"{name}, {arguments.dtype}: {load.name}, {sum(ask.max_tokens for ask in requests):,} output tokens", rows)
    ours = results[contenders.OURS].rounds.get(load.name, [])
    by_peer = {who: ratios(ours, results[who].rounds.get(load.name, [])) for who in arguments.peers}
    for who, by_round in by_peer.items():
        if by_round:
            print(f"  ours over {who}: {median(by_round):.2f} (median of {len(by_round)}: {', '.join(f'{ratio:.2f}' for ratio in by_round)})")
    return {"load": asdict(load), "least": asdict(floor), "rows": rows, "ratios": by_peer}


if __name__ == "__main__":
    main()
