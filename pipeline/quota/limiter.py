"""Who may go now, and how long the others wait."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.quota.bucket import Bucket

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a tenant may ask for in a minute; None is unlimited."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    @property
    def request_interval_s(self) -> float:
        """Seconds that a request costs; 0 where requests are not counted."""
        return 0.0 if self.requests_per_minute is None else MINUTE_S / self.requests_per_minute

    @property
    def token_interval_s(self) -> float:
        """Seconds that a token costs; 0 where tokens are not counted."""
        return 0.0 if self.tokens_per_minute is None else MINUTE_S / self.tokens_per_minute

    @property
    def is_limited(self) -> bool:
        """Tells whether there is anything to count."""
        return self.requests_per_minute is not None or self.tokens_per_minute is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Every tenant's rate: its own where it has one, which replaces `default` whole. `burst_s` worth of it may come at once."""

    default: Rate = Rate()
    tenants: Mapping[str, Rate]
    burst_s: float = MINUTE_S

    def of(self, tenant: str) -> Rate:
        """The tenant's rate."""
        return self.tenants.get(tenant, self.default)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a tenant that wants to go, or, with negative numbers, what is given back."""

    tenant: str
    tokens: int
    requests: int = 1


class Limiter(Protocol):
    """Counts what tenants take. Belongs to the thread of the worker's loop, and never makes it wait for long."""

    def blocked_s(self, tenant: str, now_s: float) -> float:
        """How long the smallest request of a tenant has to wait for certain; known without asking anybody."""
        ...

    def take(self, asks: Sequence[Ask], now_s: float) -> list[float]:
        """Lets requests through in their order: 0 for one that may go and is counted, else how many seconds it has to wait."""
        ...

    def settle(self, ask: Ask, now_s: float) -> None:
        """Counts what was used beyond what was taken, or, negative, gives back what was not."""
        ...

    def beat(self, now_s: float) -> None:
        """Does what is due; called every step."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class _Allowance:
    requests: Bucket
    tokens: Bucket

    def wait_s(self, ask: Ask, now_s: float) -> float:
        return max(self.requests.wait_s(ask.requests, now_s), self.tokens.wait_s(ask.tokens, now_s))

    def take(self, ask: Ask, now_s: float) -> None:
        self.requests.take(ask.requests, now_s)
        self.tokens.take(ask.tokens, now_s)


class LocalLimiter:
    """Counts in this process alone: with several workers a tenant has its rate at each of them."""

    def __init__(self, rates: Rates):
        self._rates = rates
        self._allowances: dict[str, _Allowance | None] = {}

    def counts(self, tenant: str) -> bool:
        """Tells whether the tenant has a limit."""
        return self._allowance(tenant) is not None

    def blocked_s(self, tenant: str, now_s: float) -> float:
        """How long a request of one token has to wait."""
        allowance = self._allowance(tenant)
        return 0.0 if allowance is None else allowance.wait_s(Ask(tenant, 1), now_s)

    def take(self, asks: Sequence[Ask], now_s: float) -> list[float]:
        """Lets requests through; see `Limiter`."""
        return [self._take(ask, now_s) for ask in asks]

    def settle(self, ask: Ask, now_s: float) -> None:
        """Counts without a question."""
        if (allowance := self._allowance(ask.tenant)) is not None:
            allowance.take(ask, now_s)

    def beat(self, now_s: float) -> None:
        """Nothing is ever due."""

    def close(self) -> None:
        """Holds nothing."""

    def _take(self, ask: Ask, now_s: float) -> float:
        allowance = self._allowance(ask.tenant)
        if allowance is None:
            return 0.0
        wait_s = allowance.wait_s(ask, now_s)
        if not wait_s:
            allowance.take(ask, now_s)
        return wait_s

    def _allowance(self, tenant: str) -> _Allowance | None:
        """The tenant's buckets, made when it is first seen; tenants come from the settings, so there are few."""
        if tenant not in self._allowances:
            rate, burst_s = self._rates.of(tenant), self._rates.burst_s
            buckets = _Allowance(Bucket(rate.request_interval_s, burst_s), Bucket(rate.token_interval_s, burst_s))
            self._allowances[tenant] = buckets if rate.is_limited else None
        return self._allowances[tenant]
