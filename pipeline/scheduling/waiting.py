"""Sequences that wait: lane before lane, within a lane the tenant who has had the least, and of his the most urgent."""

from bisect import insort
from collections.abc import Iterator, Mapping
from operator import attrgetter
from types import MappingProxyType

from pipeline.scheduling.fairness import Accounts
from pipeline.scheduling.sequence import Lane, Sequence

_urgency = attrgetter("urgency")
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})


class Waiting:
    """The queue, and the accounts of those who wait in it and of those who run."""

    def __init__(self, weights: Mapping[str, float] = NO_WEIGHTS):
        self.tokens = 0
        self.deferrals_total = 0
        self._accounts = {lane: Accounts(weights) for lane in Lane}
        self._queues: dict[Lane, dict[str, list[Sequence]]] = {lane: {} for lane in Lane}

    def __len__(self) -> int:
        """Counts the sequences."""
        return sum(len(queue) for queues in self._queues.values() for queue in queues.values())

    def __iter__(self) -> Iterator[Sequence]:
        """Lists the sequences by lane, each lane's by tenant."""
        return (sequence for queues in self._queues.values() for queue in queues.values() for sequence in queue)

    def counts(self) -> dict[Lane, int]:
        """Counts the sequences of each lane."""
        return {lane: sum(map(len, queues.values())) for lane, queues in self._queues.items()}

    def enter(self, sequence: Sequence) -> None:
        """Takes a new sequence."""
        self._accounts[sequence.lane].enter(sequence.tenant)
        self.push(sequence)

    def leave(self, sequence: Sequence) -> None:
        """Lets go of a sequence that ended, wherever it was."""
        self._accounts[sequence.lane].leave(sequence.tenant)

    def push(self, sequence: Sequence) -> None:
        """Queues a sequence, or one that was preempted again."""
        self.tokens += sequence.tokens
        insort(self._queues[sequence.lane].setdefault(sequence.tenant, []), sequence, key=_urgency)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out."""
        queues = self._queues[sequence.lane]
        queues[sequence.tenant].remove(sequence)
        if not queues[sequence.tenant]:
            del queues[sequence.tenant]
        self.tokens -= sequence.tokens

    def charge(self, lane: Lane, tenant: str, tokens: int) -> None:
        """Writes what is computed for a tenant on its account in a lane."""
        self._accounts[lane].charge(tenant, tokens)

    def first(self, lane: Lane) -> Sequence | None:
        """Finds the next sequence of a lane."""
        queues = self._queues[lane]
        if not queues:
            return None
        tenant = next(iter(queues)) if len(queues) == 1 else self._accounts[lane].first(queues)
        return queues[tenant][0]

    def queues(self, lane: Lane) -> list[tuple[str, list[Sequence]]]:
        """Lists the tenants that wait in a lane, each with its sequences by urgency."""
        return list(self._queues[lane].items())

    def defer(self, sequence: Sequence, until_s: float) -> None:
        """Makes a sequence less urgent than it was."""
        self.remove(sequence)
        sequence.urgency = (until_s, sequence.urgency[1])
        self.push(sequence)
        self.deferrals_total += 1

    def oldest(self, lane: Lane) -> Sequence | None:
        """Finds the sequence of a lane that arrived first."""
        return min((queue[0] for queue in self._queues[lane].values()), key=attrgetter("rank"), default=None)
