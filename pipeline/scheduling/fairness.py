"""Who of a lane's tenants is next: whoever has had the least for its weight.

A deficit round robin whose quantum is a token: each tenant's account grows by what is computed for it, divided by its weight, and
the smallest account goes first. Who comes back after a pause begins where the least of those present stands, so that a pause
earns nothing and costs nothing. The idea is the virtual token counter of Sheng et al., Fairness in Serving Large Language Models
(OSDI 2024), with the accounts of the absent kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping


class Accounts:
    """What the tenants of one lane have had."""

    def __init__(self, weights: Mapping[str, float]):
        self._weights = weights
        self._served: dict[str, float] = {}
        self._present: Counter[str] = Counter()

    def enter(self, tenant: str) -> None:
        """Notes that one more sequence of this tenant wants service."""
        if not self._present[tenant]:
            least = min((self._served[other] for other, count in self._present.items() if count), default=0.0)
            self._served[tenant] = max(self._served.get(tenant, 0.0), least)
        self._present[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Notes that one of them ended."""
        self._present[tenant] -= 1

    def charge(self, tenant: str, tokens: int) -> None:
        """Notes what was computed for a tenant."""
        self._served[tenant] += tokens / self._weights.get(tenant, 1.0)

    def first(self, tenants: Iterable[str]) -> str:
        """Names the one of these who has had the least."""
        return min(tenants, key=self._served.__getitem__)
