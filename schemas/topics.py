"""The topics of the wire contract, under one prefix."""

from dataclasses import dataclass

DEFAULT_PREFIX = "penstock"


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic names under `prefix`."""

    prefix: str = DEFAULT_PREFIX

    @property
    def requests(self) -> str:
        """Requests in."""
        return f"{self.prefix}.requests"

    @property
    def chunks(self) -> str:
        """Stream events out."""
        return f"{self.prefix}.chunks"

    @property
    def results(self) -> str:
        """Batch-output lines out."""
        return f"{self.prefix}.results"

    @property
    def control(self) -> str:
        """Cancels, and the workers' own `assigned` records."""
        return f"{self.prefix}.control"

    @property
    def dlq(self) -> str:
        """Dead letters."""
        return f"{self.prefix}.dlq"

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic of the contract."""
        return (self.requests, self.chunks, self.results, self.control, self.dlq)
