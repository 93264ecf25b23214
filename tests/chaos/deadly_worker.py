"""A real worker with an engine that dies of some rows and fails at others: `python deadly_worker.py`, settings from the environment."""

import os
import signal
import sys
from collections.abc import Sequence

from pipeline.engine.base import Job, RequestKey, StepOutput
from pipeline.engine.fake import FakeEngine
from pipeline.scheduling.sequence import Lane
from pipeline.settings import load
from schemas.errors import EngineError
from schemas.request import CompletionBody, Request
from workers import stream

DEADLY, RAISING = "deadly", "raising"


class DeadlyEngine(FakeEngine):
    """Rows that say so kill the process in the step that would compute them, or fail there."""

    def __init__(self) -> None:
        super().__init__(max_sequences=16)
        self._marks: dict[Sequence[int], str] = {}
        self._killers: set[RequestKey] = set()
        self._raising: list[RequestKey] = []

    def prepare(self, request: Request) -> Job:
        """Remembers what the text says."""
        job = super().prepare(request)
        assert isinstance(request.body, CompletionBody)
        for mark in (DEADLY, RAISING):
            if mark in str(request.body.prompt):
                self._marks[job.work.prompt_ids] = mark
        return job

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        """Queues all but those that raise."""
        match self._marks.get(job.work.prompt_ids):
            case "raising":
                self._raising.append(key)
                return
            case "deadly":
                self._killers.add(key)
        super().add(key, job, lane, now_s)

    def cancel(self, key: RequestKey) -> None:
        """Drops it."""
        self._killers.discard(key)
        super().cancel(key)

    def has_work(self) -> bool:
        """Also where there is only something to raise."""
        return bool(self._raising) or super().has_work()

    def step(self, now_s: float) -> Sequence[StepOutput]:
        """Dies, or fails, or computes."""
        if self._killers:
            os.kill(os.getpid(), signal.SIGKILL)
        failed = [StepOutput(key=key, error=EngineError("the model failed on this request")) for key in self._raising]
        self._raising.clear()
        return [*failed, *super().step(now_s)]


if __name__ == "__main__":
    stream.load_engines = lambda *_: {"fake": DeadlyEngine()}
    sys.exit(stream.main(load()))
