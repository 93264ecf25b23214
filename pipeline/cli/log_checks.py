"""What `penstock doctor` asks of the log."""

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue

from pipeline.cli.finding import Finding, Status
from pipeline.delivery.routes import Routes
from pipeline.settings import Settings
from pipeline.transport import topics
from pipeline.transport.base import Acknowledged, BrokerUnavailable, Partition, Transport, TransportError
from schemas.record import Encoded

CONTACT_S = 5.0
PROBE_S = 10.0
PROBE = Encoded(key=None, value=b'{"type":"probe"}')
"""A control message of a type that nobody knows, and so everybody passes over."""
SKEW_WARN_MS = 1_000
SKEW_FAIL_MS = 30_000


def contact(log: Transport) -> Finding:
    """Whether somebody answers."""
    try:
        return Finding(check="log", status=Status.OK, detail=log.ping(CONTACT_S))
    except BrokerUnavailable as error:
        return Finding(check="log", status=Status.FAIL, detail=str(error), advice="start the broker, or name another with --bootstrap-servers")


def contract(log: Transport, settings: Settings) -> Iterator[Finding]:
    """Whether the topics are there, and as they should be."""
    plan = topics.plan(log, topics.contract(settings.kafka))
    if plan.missing:
        missing = f"missing: {', '.join(spec.name for spec in plan.missing)}"
        status = Status.WARN if settings.kafka.create_topics else Status.FAIL
        yield Finding(check="topics", status=status, detail=missing, advice="penstock topics apply, or start a worker")
    for difference in plan.differing:
        yield Finding(check="topics", status=Status.WARN, detail=str(difference), advice="change it with your broker's tools")
    if plan.is_fulfilled:
        yield Finding(check="topics", status=Status.OK, detail=f"all {len(settings.topics.all)} are as they should be")


def group(log: Transport, settings: Settings) -> Iterator[Finding]:
    """How far the workers are behind."""
    request_topics = Routes.of(settings).request_topics
    if len(log.describe(request_topics)) < len(request_topics):
        return
    lags = log.lag(settings.kafka.group_id, request_topics)
    name = settings.kafka.group_id
    if all(lag.committed is None for lag in lags):
        yield Finding(check="group", status=Status.WARN, detail=f"{name} has never committed", advice="start a worker")
        return
    behind = sum(lag.end - (lag.committed or 0) for lag in lags)
    yield Finding(check="group", status=Status.OK, detail=f"{name} has {behind} requests open or waiting in {len(lags)} partitions")


def clock(log: Transport, settings: Settings) -> Iterator[Finding]:
    """Whether this program may write and read, how long a round trip takes, and whose clock is wrong."""
    control = Partition(settings.topics.control, 0)
    if control.topic not in log.describe([control.topic]):
        return
    try:
        before_s, acknowledged = time.time(), _write_probe(log, control)
        after_s, timestamp_ms = time.time(), _read_back(log, acknowledged)
    except TransportError as error:
        advice = f"check what this client may do with {control.topic} (ACLs)"
        yield Finding(check="write and read", status=Status.FAIL, detail=str(error), advice=advice)
        return
    yield Finding(check="write and read", status=Status.OK, detail=f"acknowledged after {(after_s - before_s) * 1000:.0f} ms")
    skew_ms = timestamp_ms - (before_s + after_s) / 2 * 1000
    status = Status.OK if abs(skew_ms) < SKEW_WARN_MS else Status.WARN if abs(skew_ms) < SKEW_FAIL_MS else Status.FAIL
    remedy = None if status is Status.OK else "synchronise the clocks: deadlines and cancels compare them"
    yield Finding(check="clock", status=status, detail=f"the log's clock is {skew_ms:+.0f} ms from this machine's", advice=remedy)


def _write_probe(log: Transport, partition: Partition) -> Acknowledged:
    answers: SimpleQueue[Acknowledged | TransportError] = SimpleQueue()
    with log.producer() as producer:
        producer.send(partition, PROBE, answers.put)
        try:
            answer = answers.get(timeout=PROBE_S)
        except Empty:
            raise BrokerUnavailable(f"a record was not acknowledged within {PROBE_S:g} s") from None
    if isinstance(answer, TransportError):
        raise answer
    return answer


def _read_back(log: Transport, written: Acknowledged) -> int:
    """The timestamp that the log gave the record, in epoch milliseconds."""
    until_s = time.monotonic() + PROBE_S
    with log.reader(frozenset({written.partition})) as reader:
        reader.seek(written.partition, written.offset)
        while time.monotonic() < until_s:
            for record in reader.poll(0.2, 10):
                if record.offset == written.offset:
                    return record.timestamp_ms
    raise BrokerUnavailable(f"a record that was written could not be read within {PROBE_S:g} s")
