"""When rows wait for live requests, and when no more."""

import pytest

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.desk import Bounds, Desk
from pipeline.offline.flight.exchange import Exchange
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.wire import Row, Wanted, Welcome
from pipeline.offline.flight.yielding import CALM_S, LOOK_S, Limits, Reason, Waiting, Yielding
from pipeline.offline.refusals import Fault
from pipeline.telemetry import Metrics
from schemas.job import Task

LIMITS = Limits(requests=3, tokens=100, first_token_s=0.5)


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        ([], None),
        ([Waiting(9.8, 10), Waiting(9.9, 10)], None),
        ([Waiting(10.0, 1)] * 3, Reason.QUEUE),
        ([Waiting(10.0, 60), Waiting(10.0, 40)], Reason.QUEUE),
        ([Waiting(9.4, 1), Waiting(10.0, 1)], Reason.FIRST_TOKEN),
    ],
)
def test_rows_wait_while_live_requests_are_many_or_late(waiting: list[Waiting], reason: Reason | None):
    """Too many, too much to read, or one beyond the target for its first token."""
    assert LIMITS.reason(waiting, 10.0) is reason


def test_without_a_target_nobody_is_late():
    """However long it takes."""
    assert Limits(requests=3, tokens=100).reason([Waiting(0.0, 1)], 1e6) is None


def test_rows_go_on_once_it_has_been_calm_for_a_while():
    """A reason that comes back in between begins the wait anew."""
    live: list[Waiting] = []
    yielding = Yielding(LIMITS, lambda: live)
    assert yielding.look(0.0) is None
    live += [Waiting(0.0, 1)] * 3
    assert yielding.look(LOOK_S / 2) is None  # it does not look at every step
    assert yielding.look(LOOK_S) is Reason.QUEUE
    live.clear()
    assert yielding.look(LOOK_S + 0.9 * CALM_S) is Reason.QUEUE
    live.append(Waiting(0.0, 1))
    assert yielding.look(2.0) is Reason.FIRST_TOKEN
    live.clear()
    assert yielding.look(2.0 + 0.9 * CALM_S) is Reason.FIRST_TOKEN
    assert yielding.look(2.0 + CALM_S) is None


def test_a_desk_takes_no_rows_meanwhile_and_says_so():
    """They stay with their caller; the gauge tells why."""
    live = [Waiting(0.0, 1)]
    metrics, lobby = Metrics(), Lobby(1)
    lobby.open(Welcome(instance="i", depth=4, models=()))
    bounds = Bounds(rows=4, tokens=1_000, attempts=1)
    desk = Desk(lobby, {"fake": FakeEngine()}, bounds, metrics, Yielding(LIMITS, lambda: live))
    exchange = Exchange(Wanted(task=Task.GENERATE, model="fake"), rows=4)
    lobby.enter(exchange)
    assert exchange.put(Row(0, Fault("invalid_request", "no prompt"), 0), lambda: False)
    gauge = metrics.bulk_yielding.labels("first_token")._value
    desk.pull(1.0)
    desk.deliver(1.0)
    assert exchange.answers(0.0) == []
    assert gauge.get() == 1
    live.clear()
    desk.pull(1.0 + CALM_S)
    desk.deliver(1.0 + CALM_S)
    assert [number for number, _ in exchange.answers(0.0) or ()] == [0]
    assert gauge.get() == 0
