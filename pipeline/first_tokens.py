"""Where the time to the first token of a stream goes, leg by leg, from its request's record in the log to its own."""

from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from pipeline.delivery.outbox import Posted
from pipeline.delivery.requests import InFlight
from pipeline.scheduling.sequence import Lane
from pipeline.scheduling.transit import Transit
from pipeline.telemetry import Metrics

KEPT = 128
"""First tokens of each lane that are told one by one, and that the quantiles are taken of."""

Json = dict[str, Any]


class Leg(StrEnum):
    """A part of the way. Together they are all of it, but for the requester's own two."""

    LOG = "log"
    """From the record's timestamp until a poll brought it; by the log's clock, so as right as that is."""
    INTAKE = "intake"
    """Until the engine had it."""
    ENGINE = "engine"
    """Until the step ended that gave the token."""
    ATTEMPT = "attempt"
    """Until it was handed to the producer: the log has acknowledged the attempt's `begin` by then."""
    PRODUCE = "produce"
    """Until the log acknowledged it."""


class FirstToken(NamedTuple):
    """One of them: when the log had it, and the seconds of each leg."""

    landed_s: float
    legs: tuple[float, ...]


class FirstTokens:
    """Hears of each first token when the log has it. One thread tells, any may ask for the report.

    Args:
        metrics: Where every leg is counted.
        transit: Where the policy learns what comes before the engine and after it.
    """

    def __init__(self, metrics: Metrics, transit: Transit):
        self._metrics = metrics
        self._transit = transit
        self._seen: dict[Lane, deque[FirstToken]] = {lane: deque(maxlen=KEPT) for lane in Lane}

    def landed(self, inflight: InFlight, posted: Posted) -> None:
        """Notes the first token of a request, which the log has acknowledged. One that the engine had to try again tells nothing."""
        first_s, acknowledged_s = inflight.first_token_s, posted.acknowledged_s
        if first_s is None or acknowledged_s is None or inflight.attempts > 1:
            return
        arrival, admitted_s = inflight.arrival, inflight.admitted_s
        legs = (arrival.log_s, admitted_s - arrival.polled_s, first_s - admitted_s, posted.posted_s - first_s, acknowledged_s - posted.posted_s)
        self._seen[inflight.lane].append(FirstToken(acknowledged_s, legs))
        for leg, seconds in zip(Leg, legs, strict=True):
            self._metrics.first_token_leg.labels(leg.value, inflight.lane.name.lower()).observe(seconds)
        if inflight.lane is not Lane.FLEX:
            self._transit.observe_inbound(arrival.log_s, arrival.unwatched_s)
            self._transit.observe_outbound(acknowledged_s - first_s)

    def report(self, now_s: float) -> Json:
        """Tells each lane's last first tokens one by one and in quantiles, and what the policy takes off its target."""
        seen = {lane.name.lower(): tuple(tokens.copy()) for lane, tokens in self._seen.items()}  # copied in one piece: others append
        return {
            "inbound_median_ms": _milliseconds(self._transit.inbound_s),
            "outbound_median_ms": _milliseconds(self._transit.outbound_s),
            "lanes": {lane: _lane(tokens, now_s) for lane, tokens in seen.items()},
        }


def _lane(tokens: Sequence[FirstToken], now_s: float) -> Json:
    return {
        "legs": {leg.value: _quantiles([token.legs[place] for token in tokens]) for place, leg in enumerate(Leg)} if tokens else {},
        "last": [{"ago_ms": _milliseconds(now_s - token.landed_s), "legs_ms": list(map(_milliseconds, token.legs))} for token in tokens],
    }


def _quantiles(values: list[float]) -> Json:
    values.sort()
    return {name: _milliseconds(values[int(share * len(values))]) for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95))}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
