"""A valid request on its way in."""

from dataclasses import dataclass

from pipeline.delivery.requests import Arrival
from pipeline.delivery.routes import Route
from pipeline.engine.base import Engine, Job
from pipeline.response_cache import Stored
from pipeline.scheduling.sequence import Lane
from pipeline.transport.base import Record
from schemas.request import Request, ServiceTier

LANES = {ServiceTier.PRIORITY: Lane.PRIORITY, ServiceTier.DEFAULT: Lane.DEFAULT, ServiceTier.FLEX: Lane.FLEX}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Everything that is known of a request before it is decided on.

    Attributes:
        arrival: When its record came.
        stored: The answer, where it is known already.
        cache_key: Under what the answer is to be kept, where it is.
    """

    request: Request
    record: Record
    tenant: str
    engine: Engine
    job: Job
    route: Route
    arrival: Arrival
    stored: Stored | None = None
    cache_key: bytes | None = None

    @property
    def lane(self) -> Lane:
        """Where it waits."""
        return LANES[self.request.service_tier]

    @property
    def identity(self) -> tuple[str, str]:
        """Tenant and `custom_id`."""
        return (self.tenant, self.request.custom_id)
