"""Whose rows are taken."""

import pytest

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.desk import STEP_ROWS, Bounds, Desk
from pipeline.offline.flight.exchange import Exchange
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.wire import Row, Wanted, Welcome
from pipeline.offline.refusals import Fault
from pipeline.telemetry import Metrics
from schemas.job import Task


class Counter:
    """A desk whose callers send nothing but faulty rows, which are answered as soon as they are taken."""

    def __init__(self) -> None:
        self._lobby = Lobby(4)
        self._lobby.open(Welcome(instance="i", depth=STEP_ROWS, models=()))
        self._desk = Desk(self._lobby, {"fake": FakeEngine()}, Bounds(rows=4, tokens=1_000, attempts=1), Metrics())

    def caller(self, rows: int) -> Exchange:
        """Comes with so many rows."""
        exchange = Exchange(Wanted(task=Task.GENERATE, model="fake"), rows=STEP_ROWS)
        self._lobby.enter(exchange)
        for number in range(rows):
            assert exchange.put(Row(number, Fault("invalid_request", "no prompt"), 0), lambda: False)
        return exchange

    def serve(self) -> None:
        """Takes what is taken between two steps."""
        self._desk.pull(0.0)
        self._desk.deliver()


@pytest.fixture
def counter() -> Counter:
    """A desk."""
    return Counter()


def taken(exchange: Exchange) -> int:
    """Rows of a caller that were taken since the last time."""
    return len(exchange.answers(0.0) or ())


def test_of_two_callers_with_equally_many_rows_the_first_one_ends_sooner(counter: Counter):
    """So that the other's rows fill the steps while it is away; nobody waits for anybody's end."""
    first, second = counter.caller(STEP_ROWS), counter.caller(STEP_ROWS)
    counter.serve()
    assert (taken(first), taken(second)) == (STEP_ROWS * 3 // 4, STEP_ROWS // 4)
    counter.serve()
    assert (taken(first), taken(second)) == (STEP_ROWS // 4, STEP_ROWS * 3 // 4)


def test_those_who_came_later_get_as_much_as_each_other(counter: Counter):
    """The turns that are not the first one's go round."""
    first, second, third = counter.caller(STEP_ROWS), counter.caller(STEP_ROWS), counter.caller(STEP_ROWS)
    counter.serve()
    seen = [taken(one) for one in (first, second, third)]
    assert seen[0] > seen[1]
    assert abs(seen[1] - seen[2]) <= 1
    assert sum(seen) == STEP_ROWS


def test_a_turn_without_a_row_is_the_next_callers(counter: Counter):
    """However long the first one is silent."""
    silent, busy = counter.caller(0), counter.caller(STEP_ROWS)
    counter.serve()
    assert (taken(silent), taken(busy)) == (0, STEP_ROWS)
