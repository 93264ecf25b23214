"""Tenants' rates, as the worker's loop applies them: reserve at admission, settle at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from pipeline.engine.base import Job
from pipeline.quota.limiter import Ask, Limiter
from pipeline.telemetry import Metrics
from schemas.errors import RateLimited

FIRST_GUESS_TOKENS = 256
"""Output expected of a tenant of whom nothing is known, where it asks for no less."""
MEMORY_REQUESTS = 32
"""How many requests a tenant's mean output remembers."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request was let through with."""

    tenant: str
    tokens: int


@dataclass(slots=True)
class _Outputs:
    """A tenant's mean output, older requests counting ever less."""

    requests: int = 0
    mean_tokens: float = FIRST_GUESS_TOKENS

    def note(self, tokens: int) -> None:
        self.requests = min(self.requests + 1, MEMORY_REQUESTS)
        self.mean_tokens += (tokens - self.mean_tokens) / self.requests


class Quotas:
    """Lets a tenant's requests through within its rate.

    A request is counted with its prompt and the output that the tenant's requests have on average, never more than it may
    write; when it has ended, with what it used. A request that is refused costs nothing.
    """

    def __init__(self, limiter: Limiter, metrics: Metrics):
        self._limiter = limiter
        self._metrics = metrics
        self._outputs: dict[str, _Outputs] = {}

    def blocks(self, tenant: str, now_s: float) -> bool:
        """Tells whether the tenant's next request would be refused for certain, however small; nobody is refused by asking."""
        return self._limiter.blocked_s(tenant, now_s) > 0.0

    def blocked(self, tenant: str, now_s: float) -> RateLimited | None:
        """Refuses a request before it costs anything, where the tenant's next could not go, however small."""
        wait_s = self._limiter.blocked_s(tenant, now_s)
        return self._refusal(tenant, wait_s) if wait_s else None

    def reserve(self, wanted: Sequence[tuple[str, Job | None]], now_s: float) -> list[Reservation | RateLimited]:
        """Lets requests through in their order, or says when to come again. One without a job is answered already: it costs no tokens."""
        asks = [Ask(tenant, 0 if job is None else self._expected_tokens(tenant, job)) for tenant, job in wanted]
        waits_s = self._limiter.take(asks, now_s) if asks else []
        return [
            self._refusal(ask.tenant, wait_s) if wait_s else Reservation(ask.tenant, ask.tokens) for ask, wait_s in zip(asks, waits_s, strict=True)
        ]

    def settle(self, reservation: Reservation, *, prompt_tokens: int, output_tokens: int, now_s: float) -> None:
        """Corrects a reservation to what was used."""
        if output_tokens:
            self._outputs.setdefault(reservation.tenant, _Outputs()).note(output_tokens)
        if over := prompt_tokens + output_tokens - reservation.tokens:
            self._limiter.settle(Ask(reservation.tenant, over, 0), now_s)

    def release(self, reservation: Reservation, now_s: float) -> None:
        """Gives everything back: another worker will ask for the request again."""
        self._limiter.settle(Ask(reservation.tenant, -reservation.tokens, -1), now_s)

    def beat(self, now_s: float) -> None:
        """Does what is due; called every step."""
        self._limiter.beat(now_s)

    def close(self) -> None:
        """Lets go of what the limiter holds."""
        self._limiter.close()

    def _expected_tokens(self, tenant: str, job: Job) -> int:
        outputs = self._outputs.get(tenant)
        mean_tokens = FIRST_GUESS_TOKENS if outputs is None else ceil(outputs.mean_tokens)
        return job.prompt_tokens + min(job.max_output_tokens, mean_tokens)

    def _refusal(self, tenant: str, wait_s: float) -> RateLimited:
        self._metrics.rate_limited.labels(tenant).inc()
        return RateLimited(f"above the tenant's rate: try again in {max(wait_s, 0.001):.3g} s", retry_after_s=wait_s)
