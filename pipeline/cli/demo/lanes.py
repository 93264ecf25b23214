"""The streams of the demo, one lane each, followed side by side."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.client import AsyncClient

MODEL = "tiny"


@dataclass(slots=True, kw_only=True)
class Lane:
    """One prompt and what has come of it. Times are seconds since the start of the run."""

    number: int
    prompt: str
    text: str = ""
    tokens: int = 0
    submitted_s: float = 0.0
    first_token_s: float | None = None
    ended_s: float | None = None
    finish_reason: str | None = None

    @property
    def time_to_first_token_s(self) -> float | None:
        """From the submission to the first token."""
        return None if self.first_token_s is None else self.first_token_s - self.submitted_s


@dataclass(slots=True, kw_only=True)
class Run:
    """All lanes, and who wants to see them change."""

    lanes: list[Lane]
    max_tokens: int
    on_change: Callable[[Lane], None] = lambda _: None
    started_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    async def play(self, client: AsyncClient, timeout_s: float) -> None:
        """Submits every prompt and follows all answers to their ends.

        Raises:
            TimeoutError: A stream was silent for `timeout_s`.
            PenstockError: A request failed.
        """
        async with asyncio.TaskGroup() as group:
            for lane in self.lanes:
                group.create_task(self._follow(client, lane, timeout_s))

    async def _follow(self, client: AsyncClient, lane: Lane, timeout_s: float) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": lane.prompt}], "max_tokens": self.max_tokens, "stream": True}
        lane.submitted_s = self.elapsed_s
        async with await client.submit({**body, "seed": lane.number}) as handle:
            async for delta in handle.deltas(timeout_s):
                if delta.restarted:
                    lane.text, lane.tokens = "", 0
                lane.text += delta.text
                lane.tokens += len(delta.token_ids)
                if lane.first_token_s is None and delta.token_ids:
                    lane.first_token_s = self.elapsed_s
                self.on_change(lane)
            lane.ended_s = self.elapsed_s
            lane.finish_reason = (await handle.result()).finish_reason
            self.on_change(lane)
