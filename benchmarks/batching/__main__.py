"""The command: models, parts, tables, plots and JSON."""

import argparse
from pathlib import Path
from typing import Any, Protocol

import benchmarks.batching as package
from benchmarks.batching import fleet
from benchmarks.batching.arrivals import Bursts, Lengths
from benchmarks.batching.models import NAMES, SMALL, folder_of
from benchmarks.batching.parts import loads, recovery, simulation, step_model, targets
from benchmarks.batching.policies import SIZE
from benchmarks.batching.real import RealServer
from benchmarks.batching.serving import Span
from benchmarks.batching.stage import Stage
from benchmarks.child import exit_when_terminated
from benchmarks.engine.models import SHIPPED
from benchmarks.report import write


class Part(Protocol):
    """A question and how it is answered."""

    def __call__(self, stage: Stage, model: str, *, rounds: int, is_short: bool) -> dict[str, Any]:
        """Runs it and shows its table; `plot`, where there is one, is an SVG."""
        ...


PARTS: dict[str, Part] = {
    "targets": targets.run,
    "loads": loads.run,
    "recovery": recovery.run,
    "simulation": simulation.run,
    "step-model": step_model.run,
}
PLOTS = Path(__file__).parents[1] / "plots"
BURSTS = Bursts(per_s=0.0, period_s=1.5, burst_s=0.15)
SPAN, SHORT_SPAN = Span(settle_s=0.7, measured_s=6.0, grace_s=10.0), Span(settle_s=0.7, measured_s=3.0, grace_s=10.0)
SLOW_BURSTS = Bursts(per_s=0.0, period_s=10.0, burst_s=1.0)
SLOW_SPAN = Span(settle_s=5.0, measured_s=20.0, grace_s=60.0)
"""For a model whose steps take a third of a second."""


def main() -> None:
    """Runs what is asked for."""
    exit_when_terminated()
    arguments = _arguments()
    if arguments.kafka or arguments.flood:
        from benchmarks.batching import flood, kafka  # noqa: PLC0415 -- a broker and Java, which nothing else here needs

        asked = flood.main if arguments.flood else kafka.main
        asked(rounds=arguments.rounds, is_short=arguments.short)
        return
    if arguments.fleet:
        fleet.main(workers=arguments.fleet, learned=arguments.learned, is_short=arguments.short)
        return
    for name in arguments.models:
        results = _measure(name, arguments)
        for part, result in results.items():
            write(f"batching-{part}-{name}", {"model": name, "dtype": arguments.dtype, "rounds": arguments.rounds, **result})


def _measure(name: str, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    is_slow = name not in {SHIPPED, SMALL}
    server = RealServer(name, folder_of(name), most_sequences=SIZE.sequences, dtype=arguments.dtype)
    stage = Stage(
        server=server,
        lengths=Lengths(),
        span=SLOW_SPAN if is_slow else SHORT_SPAN if arguments.short else SPAN,
        bursts=SLOW_BURSTS if is_slow else BURSTS,
        baseline_rounds=2 if arguments.short else 3,
    )
    results = {}
    for part in arguments.parts:
        result = PARTS[part](stage, name, rounds=arguments.rounds, is_short=arguments.short)
        if plot := result.pop("plot", None):
            PLOTS.mkdir(exist_ok=True)
            (PLOTS / f"batching-{part}-{name}.svg").write_text(plot, encoding="utf-8")
        results[part] = result
    server.close()
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=package.__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer settings and loads, shorter runs, the shipped model alone: a few minutes")
    parser.add_argument("--models", type=lambda text: text.split(","), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help="runs of each contender, with other arrivals each time")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--kafka", action="store_true", help="through a real broker and a worker process, from the outside")
    parser.add_argument("--flood", action="store_true", help="the same way, beside a tenant that sends far more than it may")
    parser.add_argument("--fleet", type=int, metavar="WORKERS", help="on paper: so many workers, by the simulator")
    parser.add_argument(
        "--learned", type=Path, metavar="FILE", help="with --fleet: step times that a worker keeps; those of an H100 by its data sheet"
    )
    arguments = parser.parse_args()
    arguments.models = arguments.models or ([SHIPPED] if arguments.short else [SHIPPED, SMALL])
    arguments.rounds = arguments.rounds or (1 if arguments.short else 2)
    if unknown := {*arguments.models} - {*NAMES} | {*arguments.parts} - {*PARTS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if (arguments.fleet is not None and arguments.fleet < 1) or (arguments.learned is not None and not arguments.fleet):
        parser.error("--fleet takes at least one worker, and --learned goes with it")
    if arguments.learned is not None and not arguments.learned.is_file():
        parser.error(f"no such file: {arguments.learned}")
    return arguments


if __name__ == "__main__":
    main()
