"""How the parts of a worker's loop are connected: from the records that are fetched to the events that are sent."""

import os
import socket
import time
from collections.abc import Mapping

from pipeline.admission import Admission
from pipeline.answers import Answers
from pipeline.delivery.assignments import Assignments
from pipeline.delivery.cancels import Cancels
from pipeline.delivery.flush_rule import FlushRule
from pipeline.delivery.outbox import Outbox
from pipeline.delivery.requests import Requests
from pipeline.delivery.routes import Routes
from pipeline.engine.base import Engine
from pipeline.first_tokens import FirstTokens
from pipeline.intake import Intake
from pipeline.loop import Loop
from pipeline.offline.engine_scorer import AHEAD
from pipeline.offline.flight.desk import Bounds as DeskBounds
from pipeline.offline.flight.desk import Desk
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.yielding import Limits as LiveLimits
from pipeline.offline.flight.yielding import Yielding, waiting
from pipeline.overload import Bounds, Overload
from pipeline.quota.opening import open_limiter
from pipeline.quota.quotas import Quotas
from pipeline.response_cache import ResponseCache
from pipeline.scheduling.transit import Transit
from pipeline.settings import MIB, ResponseCacheSettings, Settings, StreamSettings
from pipeline.telemetry import Metrics
from pipeline.transport.base import Consumer, Partition, Transport


def build_loop(settings: Settings, transport: Transport, engines: Mapping[str, Engine], metrics: Metrics, lobby: Lobby, transit: Transit) -> Loop:
    """Puts the parts together and connects them."""
    routes = Routes.of(settings)
    outbox = Outbox(transport.producer)
    outbox.start()
    cancels = Cancels(transport, settings.topics.control)
    cancels.start(time.time_ns() // 1_000_000)
    consumer = transport.consumer(settings.kafka.group_id, routes.request_topics)
    assignments = _assignments(settings, consumer, outbox)
    quotas = Quotas(open_limiter(settings.rate_limits, settings.kafka.topic_prefix, metrics), metrics)
    first_tokens = FirstTokens(metrics, transit)
    answers = _answers(settings, routes, outbox, assignments, quotas, first_tokens, metrics)
    admission = Admission(answers=answers, cancels=cancels, overload=_overload(settings), quotas=quotas, metrics=metrics)
    return Loop(
        intake=Intake(
            consumer=consumer,
            assignments=assignments,
            answers=answers,
            admission=admission,
            cancels=cancels,
            engines=engines,
            limits=settings.limits.records,
            metrics=metrics,
            transit=transit,
            refusals_per_s=settings.rate_limits.refusals_per_s,
        ),
        admission=admission,
        answers=answers,
        assignments=assignments,
        cancels=cancels,
        outbox=outbox,
        desk=_desk(settings, lobby, engines, answers.requests, metrics),
        engines=engines,
        metrics=metrics,
        drain_s=settings.limits.drain_s,
    )


def bulk_rows(settings: Settings) -> int:
    """Rows from the bulk door that engines hold at a time, of all callers together; twice as many of each caller are read."""
    return AHEAD * settings.engine.max_sequences


def _assignments(settings: Settings, consumer: Consumer, outbox: Outbox) -> Assignments:
    return Assignments(
        consumer=consumer,
        outbox=outbox,
        control=Partition(settings.topics.control, 0),
        member=f"{socket.gethostname()}:{os.getpid()}",
        window=settings.limits.partition_window,
        revoke_budget_s=min(settings.limits.drain_s, settings.kafka.session_timeout_ms / 3_000),
    )


def _answers(
    settings: Settings, routes: Routes, outbox: Outbox, assignments: Assignments, quotas: Quotas, first_tokens: FirstTokens, metrics: Metrics
) -> Answers:
    return Answers(
        requests=Requests(settings.limits.duplicate_window_s),
        routes=routes,
        outbox=outbox,
        assignments=assignments,
        quotas=quotas,
        metrics=metrics,
        first_tokens=first_tokens,
        flush_rule=_flush_rule(settings.stream),
        max_unacknowledged_bytes=settings.stream.max_unacknowledged_mib * MIB,
        attempts=settings.engine.attempts,
        cache=_cache(settings.response_cache),
    )


def _flush_rule(settings: StreamSettings) -> FlushRule:
    return FlushRule(
        interval_s=settings.flush_interval_ms / 1_000,
        flex_interval_s=settings.flex_flush_interval_ms / 1_000,
        tokens=settings.flush_tokens,
    )


def _cache(settings: ResponseCacheSettings) -> ResponseCache | None:
    return ResponseCache(max_bytes=settings.max_mib * MIB, max_age_s=settings.max_age_s) if settings.enabled else None


def _overload(settings: Settings) -> Overload:
    limits, admission = settings.limits, settings.admission
    bounds = Bounds(waiting_requests=limits.waiting_requests, waiting_tokens=limits.waiting_tokens, wait_s=admission.max_wait_s)
    return Overload(bounds=bounds, policy=admission.overflow)


def _desk(settings: Settings, lobby: Lobby, engines: Mapping[str, Engine], requests: Requests, metrics: Metrics) -> Desk:
    bounds = DeskBounds(rows=bulk_rows(settings), tokens=settings.bulk.tokens, attempts=settings.engine.attempts)
    return Desk(lobby, engines, bounds, metrics, Yielding(_live_limits(settings), lambda: waiting(requests)))


def _live_limits(settings: Settings) -> LiveLimits:
    limits, ttft_ms = settings.limits, settings.targets.ttft_ms
    first_token_s = None if ttft_ms is None else ttft_ms / 1_000
    return LiveLimits(requests=limits.waiting_requests, tokens=limits.waiting_tokens, first_token_s=first_token_s)
