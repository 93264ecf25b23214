"""When the desk hands answers out."""

import pyarrow as pa

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.desk import DELIVER_MANY_S, DELIVER_S, MANY_ROWS, Bounds, Desk
from pipeline.offline.flight.exchange import Exchange
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.wire import Wanted, Welcome, read_rows
from pipeline.telemetry import Metrics
from schemas.job import Task


def desk_and_caller(engine, rows, lengths):
    """A desk with room for so many rows, what it counts, and a caller whose rows ask for so many tokens each."""
    lobby, metrics = Lobby(1), Metrics()
    lobby.open(Welcome(instance="i", depth=8, models=()))
    desk = Desk(lobby, {"fake": engine}, Bounds(rows=rows, tokens=10_000, attempts=1), metrics)
    wanted = Wanted(task=Task.GENERATE, model="fake", fields={"ignore_eos": True})
    exchange = Exchange(wanted, rows=len(lengths))
    lobby.enter(exchange)
    bodies = [f'{{"prompt": "a b c", "max_tokens": {tokens}}}' for tokens in lengths]
    for row in read_rows(pa.record_batch({"row": range(len(lengths)), "body": bodies}), wanted):
        assert exchange.put(row, lambda: False)
    return desk, metrics, exchange


def test_answers_go_out_together_but_the_last_at_once():
    """While rows run, those that end within a moment of each other wait for it to pass; once none runs, nobody waits."""
    engine = FakeEngine()
    desk, _, exchange = desk_and_caller(engine, 8, (1, 2, 3, 4))
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


def test_many_answers_do_not_wait_as_long_as_few():
    """Their caller may have rows to send in their place."""
    engine = FakeEngine()
    desk, _, exchange = desk_and_caller(engine, 2 * MANY_ROWS, [1] + [2] * MANY_ROWS + [9])
    desk.pull(0.0)
    got = []
    for now_s in (1.0, 1.0 + DELIVER_MANY_S):
        for output in engine.step(now_s):
            desk.take(output)
        desk.deliver(now_s)
        got.append([number for number, _ in exchange.answers(0.0) or ()])
    assert got == [[0], list(range(1, MANY_ROWS + 1))]


def test_rows_are_taken_when_there_is_room_for_a_few():
    """And all of them come through, with every token counted."""
    engine = FakeEngine()
    lengths = [1] + [2] + [6] * 30 + [1] * 20
    desk, metrics, exchange = desk_and_caller(engine, 32, lengths)
    running, answered = [], set()
    for step in range(100):
        desk.pull(float(step))
        running.append(metrics.bulk_rows_running._value.get())
        for output in engine.step(float(step)):
            desk.take(output)
        desk.deliver(float(step))
        answered |= {number for number, _ in exchange.answers(0.0) or ()}
    assert running[:4] == [32, 31, 32, 32], "one free place is left as it is, two are filled"
    assert answered == set(range(len(lengths)))
    assert metrics.generation_tokens._value.get() == sum(lengths)
