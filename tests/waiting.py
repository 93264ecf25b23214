"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable

TIMEOUT_S = 60.0
LOOK_S = 0.005


def wait_for(condition: Callable[[], object], timeout_s: float = TIMEOUT_S, why: Callable[[], str] = str) -> None:
    """Waits until it holds; fails with what `why` says where it does not in time."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, why()
        time.sleep(LOOK_S)
