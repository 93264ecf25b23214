"""Calls whose time has come."""

import os
import time

from pipeline.offline.jobs.errands import GRACE_S, Board, Errand, make_board
from pipeline.offline.jobs.registry import Home
from tests.jobs.conftest import Bench


def age(board: Board, seconds: float) -> None:
    """Makes all calls so old."""
    for path in board.folder.glob("*.called"):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def call_again(bench: Bench, home: Home) -> list[Errand]:
    """Reconciles when it is time to; returns what was called."""
    age(make_board(home.errands), GRACE_S + 1)
    bench.driver.reconcile()
    return list(bench.calls.made)
