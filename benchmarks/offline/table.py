"""From turns to the rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.offline.ran import Ran


@dataclass(frozen=True, slots=True)
class Work:
    """What was done in a round."""

    rows: int
    tokens: int


@dataclass(slots=True)
class Turns:
    """A contender's turns by round, or why it took none."""

    by_round: dict[int, Ran] = field(default_factory=dict)
    reason: str | None = None

    def best_s(self) -> float:
        """Its fastest scoring."""
        return min((ran.scoring_s for ran in self.by_round.values()), default=float("inf"))


def table(works: Sequence[Work], turns: Mapping[str, Turns], ours: str) -> list[dict[str, Any]]:
    """A row per contender: medians over its rounds, and the ratio of ours to it in the same rounds."""
    rows = [_row(name, works, own, turns[ours]) for name, own in turns.items()]
    return rows if any(own.reason for own in turns.values()) else [{key: value for key, value in row.items() if key != "reason"} for row in rows]


def _row(name: str, works: Sequence[Work], turns: Turns, ours: Turns) -> dict[str, Any]:
    rounds = list(turns.by_round.items())
    both = [(ran, ours.by_round[number]) for number, ran in rounds if number in ours.by_round]

    def middle(values: list[float]) -> float | None:
        return median(values) if values else None

    return {
        "what": name,
        "rows/s": middle([works[number].rows / ran.scoring_s for number, ran in rounds]),
        "tokens/s": middle([works[number].tokens / ran.scoring_s for number, ran in rounds]),
        "scoring s": middle([ran.scoring_s for _, ran in rounds]),
        "cpu s": middle([ran.scoring_cpu_s for _, ran in rounds]),
        "process s": middle([ran.process_s for _, ran in rounds]),
        "process cpu s": middle([ran.process_cpu_s for _, ran in rounds]),
        "ours": middle([theirs.scoring_s / own.scoring_s for theirs, own in both]),
        "by cpu": middle([theirs.scoring_cpu_s / own.scoring_cpu_s for theirs, own in both]),
        "by process": middle([theirs.process_s / own.process_s for theirs, own in both]),
        "rounds": len(rounds),
        "reason": turns.reason,
    }
