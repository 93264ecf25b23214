"""One model that reads text and writes none, behind the engine protocol: texts of many requests share each step."""

import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
import torch

from pipeline.engine.base import EngineStats, Job, ModelInfo, RequestKey, StepOutput
from pipeline.engine.pooling.patience import Patience
from pipeline.engine.pooling.runner import Runner
from pipeline.engine.pooling.turns import Pending, Place, Turns
from pipeline.engine.pooling.work import Text
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.sequence import Lane
from schemas.errors import EngineError, InvalidRequest
from schemas.events import FinishReason
from schemas.pooled_results import Rows
from schemas.request import Request

log = structlog.get_logger(__name__)

NOT_A_NUMBER = "its output is not a number"


class Preparation(Protocol):
    """Validates requests; one class per task."""

    def prepare(self, request: Request) -> Job:
        """See `Engine.prepare`."""
        ...


class PoolingEngine:
    """Serves one model; built by `loading.load`.

    A step computes at most `token_budget` tokens, or one text that is longer. A request is answered in the step that computes
    the last of its texts. A step that has room waits a little for company, where that pays.
    """

    def __init__(self, *, info: ModelInfo, preparation: Preparation, runner: Runner, token_budget: int, max_wait_s: float = 0.0):
        self._info = info
        self._preparation = preparation
        self._runner = runner
        self._token_budget = token_budget
        self._turns = Turns()
        self._patience = Patience(max_wait_s)
        self._pending: dict[RequestKey, Pending] = {}
        self._batch_texts = self._batch_tokens = 0

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._info

    def warm_up(self) -> None:
        """Reads a few texts of different lengths."""
        self._runner.run([Text((0,) * min(tokens, self._info.context_tokens)) for tokens in (4, 16, 16, 64)])

    def prepare(self, request: Request) -> Job:
        """Validates and tokenises; see `preparation`."""
        return self._preparation.prepare(request)

    def prepare_likelihood(self, text: str | Sequence[int]) -> Job:  # noqa: ARG002 -- whatever the text
        """Refuses: a model that writes nothing does not tell how a text goes on."""
        raise InvalidRequest(f"model {self._info.name!r} writes no text, so it can't tell how likely one is", param="model")

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        """Queues the texts of a request."""
        self._pending[key] = pending = Pending(key, lane, job.work, now_s)
        self._turns.add(pending)
        self._patience.note_arrival(now_s)

    def cancel(self, key: RequestKey) -> None:
        """Drops a request at once: nothing of it is in flight between steps."""
        if (pending := self._pending.pop(key, None)) is not None:
            self._turns.drop(pending)

    def has_work(self) -> bool:
        """Tells whether a step would do anything."""
        return bool(self._pending)

    def step(self, now_s: float) -> Sequence[StepOutput]:  # noqa: ARG002 -- the protocol's clock; turns need none
        """Reads the next texts and answers the requests that they complete."""
        places = self._turns.take(self._token_budget)
        self._batch_texts, self._batch_tokens = len(places), sum(len(place.text) for place in places)
        failed: dict[RequestKey, str] = {}
        started_s = time.perf_counter()
        self._read(places, failed)
        self._patience.note_step(self._batch_tokens, time.perf_counter() - started_s)
        whole = {p.pending.key: p.pending for p in places if p.pending.key not in failed and p.pending.is_read}
        return [self._fail(key, reason) for key, reason in failed.items()] + [self._answer(pending) for pending in whole.values()]

    def stats(self) -> EngineStats:
        """Reads the gauges. A request runs from its first text on."""
        turns = self._turns
        return EngineStats(
            running=len(self._pending) - turns.untouched,
            waiting=turns.untouched,
            waiting_tokens=turns.tokens,
            batch_sequences=self._batch_texts,
            batch_tokens=self._batch_tokens,
            waits_until_s=self._waits_until_s(),
        )

    def closed_batches(self) -> Sequence[ClosedBatch]:
        """Has none to explain."""
        return ()

    def close(self) -> None:
        """Frees the device's memory; the engine is of no use afterwards."""
        self._runner.close()

    def _waits_until_s(self) -> float:
        if not self._pending or self._turns.tokens >= self._token_budget:
            return 0.0
        oldest = next(iter(self._pending.values()))
        return self._patience.waits_until_s(len(self._pending), oldest.arrived_s)

    def _read(self, places: list[Place], failed: dict[RequestKey, str]) -> None:
        """Computes the rows of some texts. Where that raises, the halves are tried, down to the text at fault."""
        try:
            rows = self._runner.run([place.text for place in places])
        except torch.AcceleratorError:  # sticky: nothing runs on this device any more
            raise
        except Exception as error:  # noqa: BLE001 -- the one place where a text's fault is told from the engine's
            if len(places) > 1:
                middle = len(places) // 2
                self._read(places[:middle], failed)
                self._read(places[middle:], failed)
            else:
                _blame(places[0].pending.key, error, failed)
            return
        for place, row in zip(places, rows, strict=True):
            if np.isfinite(row).all():
                place.pending.rows[place.index] = row
            else:
                log.error("the model computed no usable number for a text", key=place.pending.key)
                failed[place.pending.key] = NOT_A_NUMBER

    def _answer(self, pending: Pending) -> StepOutput:
        del self._pending[pending.key]
        rows: Rows = np.stack([pending.rows[index] for index in range(len(pending.rows))])
        return StepOutput(key=pending.key, pooled=pending.work.finish(rows), finish_reason=FinishReason.STOP)

    def _fail(self, key: RequestKey, reason: str) -> StepOutput:
        self.cancel(key)
        return StepOutput(key=key, error=EngineError(f"the engine failed on this request: {reason}"))


def _blame(key: RequestKey, error: Exception, failed: dict[RequestKey, str]) -> None:
    """Notes and logs a text's fault. Not with its traceback: some renderers print the variables of each frame, texts among them."""
    failed[key] = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    log.error(
        "a text failed in the engine",
        key=key,
        error=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}",
        at=" < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)),
    )
