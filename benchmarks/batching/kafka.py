"""From the outside: one worker process on a real broker, told a target in its environment; bursty live streams and a saturating backlog."""

import json
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.batching.arrivals import Ask, Bursts, Lengths
from benchmarks.batching.outcome import Outcome, quantile
from benchmarks.batching.policies import Contender
from benchmarks.batching.serving import Span
from benchmarks.batching.stage import LIVE_SHARE, Stage
from benchmarks.child import end
from benchmarks.e2e import environment_of, start_worker
from benchmarks.report import publish, show
from compose.kafka.broker import KafkaBroker
from pipeline.first_tokens import Leg
from pipeline.models import TINY
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.sequence import Lane
from pipeline.settings import ModelSettings, Settings
from pipeline.settings import load as load_settings
from pipeline.transport.base import Acknowledged, Partition, TopicSpec, TransportError
from pipeline.transport.opening import open_transport
from schemas.codec import decode_event
from schemas.errors import BY_CODE
from schemas.events import Chunk, End, Error
from schemas.record import Encoded

MODEL = ModelSettings(name="tiny", source=str(TINY))
TIERS = {Lane.DEFAULT: "default", Lane.FLEX: "flex"}
STEPS = 2.0
POLL_S = 0.002
END_S = 30.0
CLOSE_S = 5.0
BURSTS = Bursts(per_s=0.0, period_s=5.0, burst_s=0.5)
SPAN = Span(settle_s=2.0, measured_s=10.0, grace_s=5.0)
SHORT_SPAN = Span(settle_s=1.0, measured_s=5.0, grace_s=5.0)


class KafkaServer:
    """A worker behind a broker: requests are published when they are due, and a token is there when a reader of the replies sees it."""

    def __init__(self, settings: Settings, card: Path):
        self._card = card
        self._transport = open_transport(settings)
        self._producer = self._transport.producer()
        self._topic = settings.topics.requests
        chunks = settings.topics.chunks
        self._reader = self._transport.reader(frozenset(Partition(chunks, number) for number in range(self._producer.partitions(chunks))))
        self._open: set[str] = set()
        self._run = 0
        self._origin_s = 0.0

    def begin(self, contender: Contender) -> None:  # noqa: ARG002 -- who decides is the worker's affair
        """Starts the clock."""
        self._run += 1
        self._origin_s = time.monotonic()

    def now_s(self) -> float:
        """Reads the monotonic clock."""
        return time.monotonic() - self._origin_s

    def wait(self, until_s: float) -> None:
        """Sleeps."""
        time.sleep(max(until_s - self.now_s(), 0.0))

    def add(self, key: int, ask: Ask, lane: Lane, arrived_s: float) -> None:  # noqa: ARG002 -- the record's time is when it is sent
        """Publishes a request."""
        body = {"prompt": ask.prompt_ids, "max_tokens": ask.output_tokens, "service_tier": TIERS[lane], "ignore_eos": True}
        custom_id = f"{self._run}-{key}"
        self._open.add(custom_id)
        self.publish(custom_id, body, self._topic)

    def publish(self, custom_id: str, body: Mapping[str, Any], topic: str) -> None:
        """Puts a request for a greedy stream into a topic."""
        body = {"model": MODEL.name, "temperature": 0, "stream": True, **body}
        line = {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body}
        name = custom_id.encode()
        self._producer.send(self._producer.partition_for(topic, name), Encoded(key=name, value=json.dumps(line).encode()), _sent)

    def create(self, topic: str) -> None:
        """Makes a topic of one partition."""
        self._transport.create([TopicSpec(name=topic, partitions=1)])

    def step(self) -> Iterable[tuple[int, int, bool]] | None:
        """Reads what has come."""
        outputs = [output for record in self._reader.poll(POLL_S, 1_000) if (output := self._read(record)) is not None]
        return outputs or None

    def clear(self) -> None:
        """Lets what is under way end."""
        give_up_s = time.monotonic() + END_S
        while self._open:
            self.step()
            if time.monotonic() > give_up_s:
                raise TimeoutError(f"{len(self._open)} requests did not end within {END_S:.0f} s")

    def closed(self) -> Sequence[ClosedBatch]:
        """Knows nothing of steps; see `page`."""
        return ()

    def slow_down(self, factor: float) -> None:
        """Cannot reach into the worker."""
        raise NotImplementedError(f"a worker process is not slowed down {factor} times from the outside")

    def page(self) -> dict[str, Any]:
        """Reads what the worker tells of its last seconds."""
        url = json.loads(self._card.read_text(encoding="utf-8"))["http"]
        with urllib.request.urlopen(f"{url}/debug/batches", timeout=5) as page:  # noqa: S310 -- our own worker
            told: dict[str, Any] = json.loads(page.read())
            return told

    def close(self) -> None:
        """Lets go of the log."""
        self._producer.close(CLOSE_S)
        self._reader.close(CLOSE_S)
        self._transport.close()

    def _read(self, record: Any) -> tuple[int, int, bool] | None:
        event = decode_event(record.key, record.value, record.headers).event
        if isinstance(event, Error):
            raise BY_CODE[event.code](event.message)
        name = record.key.decode()
        if isinstance(event, End):
            self._open.discard(name)
        run, _, key = name.partition("-")
        if int(run) != self._run or not isinstance(event, Chunk | End):
            return None
        return int(key), len(event.token_ids) if isinstance(event, Chunk) else 0, isinstance(event, End)


class Watching(KafkaServer):
    """Remembers what the worker told at the end of a run, before it fades: of its steps, and where live requests' first tokens lost their time.

    Attributes:
        last: Its steps of late.
        legs_ms: Each leg's quantiles, over the last live requests of the run that the worker remembers.
    """

    last: Mapping[str, Any]
    legs_ms: Mapping[str, Any]

    def clear(self) -> None:
        """Reads, and lets what is under way end."""
        page, run_ms = self.page(), 1_000 * self.now_s()
        self.last = page["models"][0]["recent"]
        mine = [one["legs_ms"] for one in page["first_tokens"]["lanes"]["default"]["last"] if one["ago_ms"] < run_ms]
        legs = dict(zip(Leg, zip(*mine, strict=True), strict=False)) | {"all": [sum(one) for one in mine]}
        self.legs_ms = {leg: {"p50": quantile(values, 0.5), "p95": quantile(values, 0.95)} for leg, values in legs.items()}
        super().clear()


def main(*, rounds: int, is_short: bool) -> None:
    """Measures each lane alone, sets the target by that, and starts a worker anew with it; that one is held against its own backlog alone."""
    span = SHORT_SPAN if is_short else SPAN
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(Path(folder) / "kafka") as broker:
        with worker(broker, Path(folder) / "aimless", {}, Watching) as server:
            aimless = _measure(server, span, rounds=rounds, per_s=None)
        target_s = aimless.alone.ttft_s(0.95) + STEPS * aimless.step_s
        told = {"PENSTOCK_TARGETS__TTFT_MS": f"{1_000 * target_s:.1f}"}
        with worker(broker, Path(folder) / "told", told, Watching) as server:
            aware = _measure(server, span, rounds=rounds, per_s=aimless.per_s)
    rows = [
        _row("alone", aimless.alone, aimless.backlog),
        _row("no target", aimless.both, aimless.backlog),
        _row("alone, with the target", aware.alone, aware.backlog),
        _row("with the target", aware.both, aware.backlog),
    ]
    is_met = aware.both.ttft_s(0.95) <= target_s
    legs_ms = {f"{what}{lane}": legs for what, phase in (("", aimless), ("target, ", aware)) for lane, legs in phase.legs_ms.items()}
    publish(
        "batching-kafka",
        f"live alone p95 {1_000 * aimless.alone.ttft_s(0.95):.0f} ms, flex alone {aimless.backlog.tokens_per_s:,.0f} and "
        f"{aware.backlog.tokens_per_s:,.0f} tokens/s in steps of {1_000 * aimless.step_s:.1f} ms; "
        f"target {1_000 * target_s:.0f} ms: {'met' if is_met else 'NOT MET'}",
        rows,
        {
            "target_ms": 1_000 * target_s,
            "met": is_met,
            "rounds": rounds,
            "live_per_s": aimless.per_s,
            "flex_step_ms": 1_000 * aimless.step_s,
            "closed": aware.closed,
            "legs_ms": legs_ms,
        },
    )
    show("where the time to a live request's first token goes, in ms", [legs_row(name, legs) for name, legs in legs_ms.items()])


@dataclass(slots=True, kw_only=True)
class Phase:
    """What one worker did with the backlog alone, live requests alone, and both, by turns; how its last steps closed, and where time went."""

    backlog: Outcome = field(default_factory=Outcome)
    alone: Outcome = field(default_factory=Outcome)
    both: Outcome = field(default_factory=Outcome)
    per_s: float
    steps_s: list[float] = field(default_factory=list)
    closed: Mapping[str, Any] = field(default_factory=dict)
    legs_ms: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def step_s(self) -> float:
        """Mean time of a step of the backlog."""
        return sum(self.steps_s) / len(self.steps_s)


def _measure(server: Watching, span: Span, *, rounds: int, per_s: float | None) -> Phase:
    """Lets a worker warm up and learn, then measures it in rounds; live requests come at a share of its throughput unless a rate is given."""
    contender = Contender(name="worker", policy=FirstCome())
    stage = Stage(server=server, lengths=Lengths(), span=SHORT_SPAN, bursts=BURSTS)
    first = stage.one(contender, seed=0, per_s=per_s or 0.0)
    phase = Phase(per_s=per_s or stage.rate(LIVE_SHARE, first))
    stage.span = span
    for seed in range(1, rounds + 1):
        phase.backlog.add(stage.one(contender, seed=seed, per_s=0.0))
        phase.steps_s.append(server.last["measured_ms"] / 1_000)
        phase.alone.add(stage.one(contender, seed=seed, per_s=phase.per_s, has_backlog=False))
        phase.legs_ms["alone"] = server.legs_ms
        phase.both.add(stage.one(contender, seed=seed, per_s=phase.per_s))
        phase.legs_ms["both"], phase.closed = server.legs_ms, server.last["closed"]
    return phase


S = TypeVar("S", bound=Watching)


@contextmanager
def worker(broker: KafkaBroker, folder: Path, told: Mapping[str, str], kind: type[S]) -> Iterator[S]:
    """Starts `penstock worker` with so much more in its environment, and connects to it."""
    settings = load_settings({"kafka": {"bootstrap_servers": broker.bootstrap_servers}, "dtype": "float32"})
    process = start_worker(MODEL, folder, {**environment_of(settings), **told})
    try:
        server = kind(settings, folder / f"worker-{process.pid}.json")
        try:
            yield server
        finally:
            server.close()
    finally:
        end(process)


def legs_row(name: str, legs_ms: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The quantiles of each leg for a table, in milliseconds."""
    return {"what": name} | {f"{leg} {share}": value for leg, shares in legs_ms.items() for share, value in shares.items()}


def _row(name: str, outcome: Outcome, alone: Outcome) -> dict[str, Any]:
    return {"what": name, **{key: value for key, value in outcome.row(None, alone.tokens_per_s).items() if key != "goodput_per_s"}}


def _sent(ack: Acknowledged | TransportError) -> None:
    if isinstance(ack, TransportError):
        raise ack
