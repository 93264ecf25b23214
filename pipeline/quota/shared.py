"""Rates that several workers share.

Two ways were open. A worker could lease slices of a tenant's rate and refill them in the background: no round trip at all,
but what idle workers hold is missing elsewhere, and a small rate cannot be sliced. Or it asks for all requests of a poll in
one round trip. That is exact, and costs a step a fraction of a millisecond in a data centre, so it is what is done here.

The loop never waits longer than the timeout, and never for a connection: the first failure puts the store aside, a thread
connects anew, and meanwhile the setting says what happens. By default this worker counts alone. It has counted along all
the time, so a tenant that is at its limit stays there.
"""

import threading
from collections.abc import Callable, Sequence

import structlog

from pipeline.quota.limiter import Ask, LocalLimiter
from pipeline.quota.store import RedisStore, StoreLost
from pipeline.settings import StoreLoss

log = structlog.get_logger(__name__)

RECONNECT_S = 0.5
SETTLE_EVERY_S = 0.5
"""How late other workers hear of tokens that a request did not use."""


class SharedLimiter:
    """Asks the store, and goes on without it.

    Args:
        connect: Makes a connection, or raises `StoreLost`; called on a thread of its own.
        local: Counts along.
        on_loss: What happens while the store is away.
        on_change: Told whether the store answers, whenever that changes; called on either thread.
    """

    def __init__(self, connect: Callable[[], RedisStore], local: LocalLimiter, *, on_loss: StoreLoss, on_change: Callable[[bool], None]):
        self._connect = connect
        self._local = local
        self._on_loss = on_loss
        self._on_change = on_change
        self._store: RedisStore | None = None
        self._unsettled: dict[str, Ask] = {}
        self._settled_s = 0.0
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_connected, name="quota", daemon=True)

    def start(self) -> None:
        """Begins to connect; until that is done the store counts as away."""
        self._wanted.set()
        self._thread.start()

    def blocked_s(self, tenant: str, now_s: float) -> float:
        """What this worker's own count says: who is blocked by that is blocked by everybody's."""
        is_open = self._store is None and self._on_loss is StoreLoss.ADMIT
        return 0.0 if is_open else self._local.blocked_s(tenant, now_s)

    def take(self, asks: Sequence[Ask], now_s: float) -> list[float]:
        """Asks the store about all of those with a limit at once, or does without; see `Limiter`."""
        counted = [ask for ask in asks if self._local.counts(ask.tenant)]
        if not counted:
            return [0.0] * len(asks)
        waits_s = iter(self._take_counted(counted, now_s))
        return [next(waits_s) if self._local.counts(ask.tenant) else 0.0 for ask in asks]

    def settle(self, ask: Ask, now_s: float) -> None:
        """Notes it for the next round trip, one sum per tenant."""
        self._local.settle(ask, now_s)
        if self._store is not None and self._local.counts(ask.tenant):
            before = self._unsettled.get(ask.tenant, Ask(ask.tenant, 0, 0))
            self._unsettled[ask.tenant] = Ask(ask.tenant, before.tokens + ask.tokens, before.requests + ask.requests)

    def beat(self, now_s: float) -> None:
        """Tells the store of what was settled, where no request has taken it along."""
        if self._unsettled and now_s - self._settled_s >= SETTLE_EVERY_S:
            self._take_counted((), now_s)

    def close(self) -> None:
        """Ends the thread and lets go of the connection."""
        self._closing.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._store is not None:
            self._store.close()

    def _take_counted(self, asks: Sequence[Ask], now_s: float) -> list[float]:
        if (store := self._store) is not None:
            try:
                waits_s = store.take(asks, tuple(self._unsettled.values()))
            except StoreLost as error:
                self._lose(store, error)
            else:
                self._settled_s = now_s
                self._unsettled.clear()
                for ask, wait_s in zip(asks, waits_s, strict=True):
                    if not wait_s:
                        self._local.settle(ask, now_s)
                return waits_s
        return self._take_alone(asks, now_s)

    def _take_alone(self, asks: Sequence[Ask], now_s: float) -> list[float]:
        match self._on_loss:
            case StoreLoss.LOCAL:
                return self._local.take(asks, now_s)
            case StoreLoss.ADMIT:
                return [0.0] * len(asks)  # uncounted: the store does not know of them either
            case StoreLoss.REFUSE:
                return [RECONNECT_S] * len(asks)

    def _lose(self, store: RedisStore, error: StoreLost) -> None:
        """Puts the store aside. What was not settled is forgotten: by the time it is back, most of it has dripped in anyway."""
        log.warning("rate_limit_store_lost", detail=str(error), meanwhile=self._on_loss.value)
        self._store = None
        self._unsettled.clear()
        self._on_change(False)
        store.close()
        self._wanted.set()

    def _keep_connected(self) -> None:
        has_warned = False
        while self._wanted.wait() and not self._closing.is_set():
            try:
                store = self._connect()
            except StoreLost as error:
                if not has_warned:
                    log.warning("rate_limit_store_unreachable", detail=str(error), meanwhile=self._on_loss.value)
                has_warned = True
                self._closing.wait(RECONNECT_S)
                continue
            log.info("rate_limit_store_reached")
            has_warned = False
            self._wanted.clear()
            self._store = store
            self._on_change(True)
