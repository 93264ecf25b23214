"""Rows from the door on their way through the engines, on the thread of the worker's loop.

Callers take turns, a row each. What waits in an engine is as much as keeps its steps full, so that live requests, which go before
them, find an engine that is free at the next step.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

import structlog

from pipeline.engine.base import Engine, Job, RequestKey, StepOutput
from pipeline.offline.answer import Answer
from pipeline.offline.flight.exchange import Ended, Exchange, Numbered
from pipeline.offline.flight.lobby import DRAINING, Lobby
from pipeline.offline.flight.wire import Row
from pipeline.offline.flight.yielding import Reason, Yielding
from pipeline.offline.gathering import Gathering, prepare
from pipeline.offline.refusals import Fault
from pipeline.scheduling.sequence import Lane
from pipeline.telemetry import Metrics
from schemas.errors import EngineError, PenstockError

log = structlog.get_logger(__name__)

FIRST_KEY: RequestKey = 1 << 40
"""Keys of rows begin where those of requests never get."""
TENANT = "bulk"
"""Whom engines take the rows for: they share no cached prompts with live tenants, and their lane by weight."""
STEP_ROWS = 64
STEP_BYTES = 256 * 1024
"""What is tokenised between two steps at most, so that running streams do not stall."""
REFILL_PART = 16
"""A sixteenth of the room must be free before rows are taken: one by one between steps, each would cost two or three times as much."""
DELIVER_S = 0.25
"""How long answers wait for more while rows run: each handing over wakes threads on both sides, which take the interpreter from the loop."""
MANY_ROWS, DELIVER_MANY_S = 16, 0.05
"""So many wait less, for their caller may have rows to send in their place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What of all callers' rows is in the engines at a time: at most one row more than `tokens`, and never more than `rows`."""

    rows: int
    tokens: int
    attempts: int


@dataclass(slots=True)
class _Running:
    exchange: Exchange
    number: int
    engine: Engine
    gathering: Gathering

    @property
    def tokens(self) -> int:
        """What it may come to."""
        return self.gathering.job.prompt_tokens + self.gathering.job.max_output_tokens


class Desk:
    """Owns the rows that are in engines. Not for use from several threads.

    Args:
        lobby: Where callers come in.
        engines: By the names of their models.
        bounds: Of the rows in them.
        metrics: Where rows are counted.
        yielding: When no rows are taken for the sake of live requests; None for never.
    """

    def __init__(
        self,
        lobby: Lobby,
        engines: Mapping[str, Engine],
        bounds: Bounds,
        metrics: Metrics,
        yielding: Yielding | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self._lobby = lobby
        self._engines = engines
        self._bounds = bounds
        self._metrics = metrics
        self._yielding = yielding
        self._yields_for: Reason | None = None
        self._clock_s = clock_s
        self._keys = count(FIRST_KEY)
        self._exchanges: deque[Exchange] = deque()
        self._running: dict[RequestKey, _Running] = {}
        self._answers: dict[Exchange, list[Numbered]] = {}
        self._delivered_s = -math.inf
        self._tokens = 0
        self._output_tokens = 0

    @property
    def has_callers(self) -> bool:
        """Whether rows may come at any moment."""
        return bool(self._exchanges)

    def pull(self, now_s: float) -> None:
        """Lets new callers in, forgets those who are gone before their rows cost another step, and takes rows while there is room.

        What is not taken stays with the caller, whom the network holds back.
        """
        self._exchanges.extend(self._lobby.arrivals())
        self._yield(now_s)
        if not self._exchanges:
            return
        for exchange in [exchange for exchange in self._exchanges if exchange.is_done()]:
            self._exchanges.remove(exchange)
            self._cancel(exchange)
        if self._yields_for is None:
            self._feed(now_s)
        self._metrics.bulk_exchanges.set(len(self._exchanges))
        self._metrics.bulk_rows_running.set(len(self._running))

    def take(self, output: StepOutput) -> None:
        """Adds the output of one step to its row."""
        running = self._running.get(output.key)
        if running is None:
            return
        if output.error is not None:
            self._fail(output.key, running, output.error)
            return
        self._output_tokens += len(output.token_ids)
        answer = running.gathering.take(output)
        if answer is not None:
            self._close(output.key)
            self._answer(running.exchange, running.number, answer)

    def deliver(self, now_s: float) -> None:
        """Counts what the step gave, and hands out what is answered, if it is time to."""
        if self._output_tokens:
            self._metrics.generation_tokens.inc(self._output_tokens)
            self._output_tokens = 0
        if not self._answers:
            return
        longest_s = DELIVER_MANY_S if sum(map(len, self._answers.values())) >= MANY_ROWS else DELIVER_S
        if not self._running or now_s - self._delivered_s >= longest_s:
            self._delivered_s = now_s
            self._hand_out()

    def drain(self) -> None:
        """Sends everybody away: who has rows without answers may send them again."""
        self._end(Ended(DRAINING, is_retryable=True))

    def close(self) -> None:
        """Ends what a drain has not, because the worker has failed."""
        self._end(Ended("the worker has failed", is_retryable=False))

    def _hand_out(self) -> None:
        answers, self._answers = self._answers, {}
        for exchange, those in answers.items():
            exchange.give(those)

    def _end(self, why: Ended) -> None:
        self._lobby.close()
        self._exchanges.extend(self._lobby.arrivals())
        self._hand_out()
        for exchange in self._exchanges:
            self._cancel(exchange)
            exchange.end(why)
        self._exchanges.clear()
        self._metrics.bulk_exchanges.set(0)
        self._metrics.bulk_rows_running.set(0)

    def _yield(self, now_s: float) -> None:
        """Looks whether rows are to wait, and tells when that changes."""
        reason = self._yielding.look(now_s) if self._yielding is not None and self._exchanges else None
        if reason is self._yields_for:
            return
        self._yields_for = reason
        for each in Reason:
            self._metrics.bulk_yielding.labels(each.value).set(each is reason)
        if reason is None:
            log.info("bulk_resumed")
        else:
            log.info("bulk_yields", reason=reason.value)

    def _feed(self, now_s: float) -> None:
        if len(self._running) + self._bounds.rows // REFILL_PART > self._bounds.rows:
            return
        size_bytes = 0
        for exchange, row in self._next_rows():
            self._add(exchange, row, now_s)
            size_bytes += row.size_bytes
            if size_bytes > STEP_BYTES:
                return

    def _next_rows(self) -> Iterator[tuple[Exchange, Row]]:
        """Rows by turns."""
        left, empty = STEP_ROWS, 0
        while left and empty < len(self._exchanges) and len(self._running) < self._bounds.rows and self._tokens < self._bounds.tokens:
            exchange = self._exchanges[0]
            self._exchanges.rotate(-1)
            row = exchange.take()
            if row is None:
                empty += 1
                continue
            left, empty = left - 1, 0
            yield exchange, row

    def _add(self, exchange: Exchange, row: Row, now_s: float) -> None:
        engine = self._engines[exchange.wanted.model]
        job = self._prepare(engine, exchange, row)
        if isinstance(job, Fault):
            self._answer(exchange, row.number, Answer(row=0, fault=job))
            return
        key = next(self._keys)
        running = self._running[key] = _Running(exchange, row.number, engine, Gathering(0, exchange.wanted.task, job))
        self._tokens += running.tokens
        self._metrics.prompt_tokens.inc(job.prompt_tokens)
        engine.add(key, job, Lane.FLEX, now_s)

    def _prepare(self, engine: Engine, exchange: Exchange, row: Row) -> Job | Fault:
        if isinstance(row.request, Fault):
            return row.request
        try:
            return replace(prepare(engine, exchange.wanted.task, row.request), tenant=TENANT)
        except PenstockError as error:
            return Fault.of(error)
        except Exception as error:  # a template or tokenizer that chokes on one input must not take the neighbours along
            log.exception("prepare_failed", row=row.number)
            return Fault(EngineError.code, f"the model's tokenizer or template failed on this row ({type(error).__name__})")

    def _fail(self, key: RequestKey, running: _Running, error: PenstockError) -> None:
        if isinstance(error, EngineError) and running.gathering.attempts < self._bounds.attempts:
            running.gathering.restart()
            running.engine.add(key, running.gathering.job, Lane.FLEX, self._clock_s())
            return
        self._close(key)
        self._answer(running.exchange, running.number, Answer(row=0, fault=Fault.of(error)))

    def _close(self, key: RequestKey) -> None:
        self._tokens -= self._running.pop(key).tokens

    def _answer(self, exchange: Exchange, number: int, answer: Answer) -> None:
        self._metrics.bulk_rows.labels("ok" if answer.fault is None else answer.fault.code).inc()
        self._answers.setdefault(exchange, []).append((number, answer))

    def _cancel(self, exchange: Exchange) -> None:
        """Drops the rows of a caller."""
        self._answers.pop(exchange, None)
        for key in [key for key, running in self._running.items() if running.exchange is exchange]:
            self._running[key].engine.cancel(key)
            self._close(key)
