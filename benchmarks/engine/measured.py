"""What is measured of one contender under one load, and the clock that all contenders share."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run. Times in seconds: `ttft_s` and `tpot_s` by request, `step_s` by engine step where the contender shows its steps."""

    tokens: int
    wall_s: float
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    step_s: tuple[float, ...] = ()

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second of wall time."""
        return self.tokens / self.wall_s

    def to_json(self) -> dict[str, Any]:
        """As it crosses from the contender's process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Measured":
        """As it arrives."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


@dataclass(slots=True)
class Clock:
    """Notes when each request was sent and when its tokens came."""

    started_s: float = field(default_factory=time.perf_counter)
    sent_s: dict[int, float] = field(default_factory=dict)
    first_s: dict[int, float] = field(default_factory=dict)
    last_s: dict[int, float] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    step_s: list[float] = field(default_factory=list)

    def sends(self, index: int) -> None:
        """Request `index` is handed over now."""
        self.sent_s[index] = time.perf_counter()

    def gets(self, index: int, count: int, at_s: float | None = None) -> None:
        """`count` tokens of it are there, now or since `at_s`."""
        if count:
            now_s = time.perf_counter() if at_s is None else at_s
            self.first_s.setdefault(index, now_s)
            self.last_s[index] = now_s
            self.tokens[index] = self.tokens.get(index, 0) + count

    def measured(self) -> Measured:
        """The run, which ends with its last token."""
        return Measured(
            tokens=sum(self.tokens.values()),
            wall_s=max(self.last_s.values()) - self.started_s,
            ttft_s=tuple(self.first_s[i] - self.sent_s[i] for i in self.sent_s),
            tpot_s=tuple((self.last_s[i] - self.first_s[i]) / (n - 1) for i, n in self.tokens.items() if n > 1),
            step_s=tuple(self.step_s),
        )
