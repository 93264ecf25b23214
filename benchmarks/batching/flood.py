"""From the outside: what live requests notice of a tenant that sends more than it may."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.batching.arrivals import Lengths
from benchmarks.batching.kafka import BURSTS, SHORT_SPAN, SPAN, Watching, legs_row, worker
from benchmarks.batching.outcome import Outcome
from benchmarks.batching.policies import Contender
from benchmarks.batching.stage import LIVE_SHARE, Stage
from benchmarks.report import publish, show
from compose.kafka.broker import KafkaBroker
from pipeline.scheduling.policy import FirstCome
from schemas.codec import decode_event
from schemas.errors import RateLimited
from schemas.events import End, Error

TENANT, TOPIC, UNREAD = "flood", "flood.requests", "flood.unread"
BURST, BURST_S = 20, 0.1
"""Requests of the flood that are sent together, and how often: a producer that sends much sends it in batches."""
ALLOWED_PER_MINUTE = 6
TOLD = {
    "PENSTOCK_KAFKA__REQUEST_TOPICS": json.dumps([{"topic": TOPIC, "tenant": TENANT}]),
    "PENSTOCK_RATE_LIMITS__TENANTS": json.dumps({TENANT: {"requests_per_minute": ALLOWED_PER_MINUTE}}),
    "PENSTOCK_RATE_LIMITS__BURST_S": "2",  # what may come at once is no flood, and computed
}
PROMPT_TOKENS, OUTPUT_TOKENS = 32, 8
SHARES = 0.5, 0.95
RUNS = {"no flood": None, "a flood that nobody reads": UNREAD, "a flood": TOPIC}
"""Where the flood goes: what it costs to send it, and the broker to keep it, is not the worker's doing."""


class Flooded(Watching):
    """Sends a flood of another tenant's requests beside those of a run.

    Attributes:
        topic: Where to; None for no flood.
        answered: How many were answered.
        refused: How many were told when to come again.
    """

    topic: str | None = None
    answered: int = 0
    refused: int = 0
    _bursts: int = 0

    def begin(self, contender: Contender) -> None:
        """Starts the clock."""
        super().begin(contender)
        self._bursts = 0

    def step(self) -> Iterable[tuple[int, int, bool]] | None:
        """Sends what is due of the flood, and reads what has come."""
        if self.topic is not None and self._bursts * BURST_S <= self.now_s():
            self._send_burst(self.topic)
        return super().step()

    def clear(self) -> None:
        """Ends the flood, and waits for all answers."""
        topic, self.topic = self.topic, None
        super().clear()
        self.topic = topic

    def _send_burst(self, topic: str) -> None:
        self._bursts += 1
        for number in range(BURST):
            custom_id = f"{TENANT}-{self._run}-{self._bursts}-{number}"
            if topic == TOPIC:
                self._open.add(custom_id)
            self.publish(custom_id, {"prompt": [1] * PROMPT_TOKENS, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}, topic)

    def _read(self, record: Any) -> tuple[int, int, bool] | None:
        if not record.key.startswith(TENANT.encode()):
            return super()._read(record)
        event = decode_event(record.key, record.value, record.headers).event
        if isinstance(event, Error) and (event.code != RateLimited.code or not event.retry_after_ms):
            raise RuntimeError(f"the flood was not refused as too much, with a time to come again, but: {event.code}")
        if isinstance(event, End | Error):
            self._open.discard(record.key.decode())
            self.answered += isinstance(event, End)
            self.refused += isinstance(event, Error)
        return None


def main(*, rounds: int, is_short: bool) -> None:
    """Measures live requests without the flood and beside it, by turns, the same ones."""
    outcomes = {name: Outcome() for name in RUNS}
    legs_ms: dict[str, Mapping[str, Any]] = {}
    contender = Contender(name="worker", policy=FirstCome())
    with (
        tempfile.TemporaryDirectory() as folder,
        KafkaBroker(Path(folder) / "kafka") as broker,
        worker(broker, Path(folder) / "worker", TOLD, Flooded) as server,
    ):
        server.create(UNREAD)
        stage = Stage(server=server, lengths=Lengths(), span=SHORT_SPAN, bursts=BURSTS)
        per_s = stage.rate(LIVE_SHARE, stage.one(contender, seed=0, per_s=0.0))
        stage.span = SHORT_SPAN if is_short else SPAN
        for seed in range(1, rounds + 1):
            for name, server.topic in [*RUNS.items()][:: 1 if seed % 2 else -1]:
                outcomes[name].add(stage.one(contender, seed=seed, per_s=per_s, has_backlog=False))
                legs_ms[name] = server.legs_ms
    flood_per_s = BURST / BURST_S
    publish(
        "batching-flood",
        f"{per_s:.1f} live requests/s, and of another tenant {flood_per_s:.0f}/s of which {ALLOWED_PER_MINUTE} a minute are allowed: "
        f"{server.answered} answered, {server.refused} refused with a time to come again",
        [_row(name, outcome, outcomes) for name, outcome in outcomes.items()],
        {
            "rounds": rounds,
            "live_per_s": per_s,
            "flood_per_s": flood_per_s,
            "answered": server.answered,
            "refused": server.refused,
            "legs_ms": legs_ms,
        },
    )
    show("where the time to a live request's first token goes, in ms", [legs_row(name, legs) for name, legs in legs_ms.items()])


def _row(name: str, outcome: Outcome, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    row: dict[str, Any] = {"what": name, "live": len(outcome.live)}
    for share in SHARES:
        own_s, (quiet_s, unread_s, _) = outcome.ttft_s(share), (one.ttft_s(share) for one in outcomes.values())
        label = f"p{100 * share:.0f}"
        row |= {f"ttft_{label}_ms": 1_000 * own_s, f"{label}_of_none": own_s / quiet_s, f"{label}_of_unread": own_s / unread_s}
    return row
