"""One task: its contenders take turns, and what they make is held against ours."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.child import Failed
from benchmarks.offline import comparing, inputs
from benchmarks.offline.ran import Contender, Ran
from benchmarks.offline.table import Turns, Work

OURS = "penstock score"
WARM_UP = -1
"""The round before the first: kernels are compiled, files are in memory, and its times do not count."""
WARM_UP_ROWS = 16


@dataclass(frozen=True, slots=True)
class Family:
    """Contenders that are one peer at several batch sizes; `default` is what it takes unless told otherwise."""

    contenders: Mapping[str, Contender]
    default: str | None = None


@dataclass(slots=True)
class Trial:
    """All turns of one task. `differences` tell whose results were not ours; their times say nothing.

    Args:
        texts: Makes the rows of a round.
        check: Holds results against ours.
        ours: The command.
        folder: Where files go meanwhile.
    """

    texts: Callable[[int], Iterator[str]]
    check: Callable[[Any, Any], None]
    ours: Contender
    folder: Path
    works: list[Work] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    turns: dict[str, Turns] = field(default_factory=lambda: {OURS: Turns()})

    def run(self, families: Sequence[Family], rows: int, rounds: int) -> None:
        """Takes all turns: in the first round all of them, then of each family the default and the best. A peer that fails is not tried again.

        Raises:
            Failed: Ours fails.
        """
        contenders = {OURS: self.ours} | {name: one for family in families for name, one in family.contenders.items()}
        source = inputs.write(self.texts(WARM_UP), WARM_UP_ROWS, self.folder / "warm-up.parquet")
        for name in [OURS, *(next(iter(family.contenders)) for family in families if family.contenders)]:
            self._turn(name, contenders[name], source)
        for number in range(rounds):
            source = inputs.write(self.texts(number), rows, self.folder / f"{number}.parquet")
            order = [OURS, *(name for family in families for name in (self._chosen(family) if number else family.contenders))]
            shift = number % len(order)
            ran = {name: self._turn(name, contenders[name], source) for name in order[shift:] + order[:shift]}
            self._judge(number, {name: one for name, one in ran.items() if one is not None})

    def _chosen(self, family: Family) -> list[str]:
        running = [name for name in family.contenders if self.turns[name].reason is None]
        best = min(running, key=lambda name: self.turns[name].best_s(), default=None)
        return [name for name in running if name in {best, family.default}]

    def _turn(self, name: str, contender: Contender, source: Path) -> Ran | None:
        turns = self.turns.setdefault(name, Turns())
        if turns.reason is not None:
            return None
        try:
            ran = contender.run(source, self.folder / f"{source.stem}-{name.replace(' ', '-')}")
        except Failed as failed:
            if name == OURS:
                raise
            turns.reason = str(failed)
            return None
        print(f"{source.stem}, {name}: {ran.scoring_s:.1f} s, processors {ran.scoring_cpu_s:.1f} s", file=sys.stderr, flush=True)
        return ran

    def _judge(self, number: int, ran: Mapping[str, Ran]) -> None:
        """Notes the turns of those whose results are the same as ours."""
        ours = comparing.read(ran[OURS].results)
        tokens = ran[OURS].tokens
        assert tokens is not None
        self.works.append(Work(len(ours), tokens))
        for name, one in ran.items():
            try:
                self.check(ours, comparing.read(one.results))
            except Failed as difference:
                self.turns[name].reason = str(difference)
                self.differences.append(f"{name}: {difference}")
            else:
                self.turns[name].by_round[number] = one
        for path in self.folder.glob(f"{number}-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
