"""When the desk hands answers out."""

import pyarrow as pa

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.desk import DELIVER_S, Bounds, Desk
from pipeline.offline.flight.exchange import Exchange
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.wire import Wanted, Welcome, read_rows
from pipeline.telemetry import Metrics
from schemas.job import Task


def test_answers_go_out_together_but_the_last_at_once():
    """While rows run, those that end within a moment of each other wait for it to pass; once none runs, nobody waits."""
    engine, lobby = FakeEngine(), Lobby(1)
    lobby.open(Welcome(instance="i", depth=8, models=()))
    desk = Desk(lobby, {"fake": engine}, Bounds(rows=8, tokens=1_000, attempts=1), Metrics())
    wanted = Wanted(task=Task.GENERATE, model="fake", fields={"ignore_eos": True})
    exchange = Exchange(wanted, rows=8)
    lobby.enter(exchange)
    bodies = [f'{{"prompt": "a b c", "max_tokens": {tokens}}}' for tokens in (1, 2, 3, 4)]
    for row in read_rows(pa.record_batch({"row": range(4), "body": bodies}), wanted):
        assert exchange.put(row, lambda: False)
    desk.pull(0.0)

    def step(now_s: float) -> list[int]:
        for output in engine.step(now_s):
            desk.take(output)
        desk.deliver(now_s)
        return [number for number, _ in exchange.answers(0.0) or ()]

    assert step(1.0) == [0]
    assert step(1.0 + DELIVER_S / 2) == []
    assert step(1.0 + DELIVER_S) == [1, 2]
    assert step(1.0 + DELIVER_S) == [3]
