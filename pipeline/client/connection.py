"""The core that both clients share: one producer, one reader thread, a transcript per open request.

Every client reads one partition of the reply topics, picked at random, and asks for its answers there: it then sees a
share of the traffic and not all of it. Where that partition ends is fixed before the first request goes out, so that
nothing can be missed.
"""

import logging
import secrets
import threading
import time
from concurrent.futures import Future
from contextlib import suppress

from pipeline.client.pulse import PROBE_AFTER_S, Pulse
from pipeline.client.register import Register
from pipeline.client.slots import Slots
from pipeline.client.submission import Submission
from pipeline.client.transcript import Transcript
from pipeline.settings import Settings, load
from pipeline.transport.base import Acknowledged, BrokerUnavailable, Consumer, Partition, Producer, ProducerFatal, Record, Transport, TransportError
from pipeline.transport.opening import open_transport
from schemas.codec import decode_event, decode_result
from schemas.control import Cancel, encode_control
from schemas.errors import PenstockError
from schemas.headers import CORRELATION_ID, EVENT
from schemas.record import Encoded
from schemas.topics import Topics

_log = logging.getLogger(__name__)

POLL_S = 0.1
"""The longest that `close` waits for the reader thread to notice."""
POLL_RECORDS = 500
PING_S = 1.0
CLOSE_S = 2.0
"""How long `close` waits for messages on their way out: requests have been waited for, only cancels can be left."""


def open_connection(settings: Settings | None, transport: Transport | None, *, timeout_s: float, max_open: int) -> "Connection":
    """Makes a connection as the settings, or else the environment, say; a transport that is given stays the caller's."""
    settings = settings or load()
    log_of_requests = transport or open_transport(settings)
    return Connection(log_of_requests, settings.topics, owns_transport=transport is None, timeout_s=timeout_s, max_open=max_open)


class Connection:
    """Sends requests, and hands the records that answer them to their transcripts.

    Args:
        transport: The log.
        owns_transport: Whether `close` closes it too.
        topics: Topic names.
        timeout_s: How long the log may be away: at the first contact, for an acknowledgement, while answers are awaited.
        max_open: How many requests may be unanswered at a time; each holds one answer in memory.
    """

    def __init__(self, transport: Transport, topics: Topics, *, owns_transport: bool, timeout_s: float, max_open: int):
        self.timeout_s = timeout_s
        self.slots = Slots(max_open)
        self._transport = transport
        self._owns_transport = owns_transport
        self._topics = topics
        self._name = secrets.token_hex(8)
        self._register = Register(self.slots)
        self._pulse = Pulse(time.monotonic())
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._connected: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._producer: Producer | None = None
        self._reply_partition = 0

    def connect(self) -> Future[None]:
        """Connects if that was not done yet; the future ends when requests may go out, or with a TransportError."""
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError("the client is closed")
            if self._connected is None:
                self._connected = Future()
                self._connected.set_running_or_notify_cancel()  # it is shared: nobody may cancel it
                self._thread = threading.Thread(target=self._run, args=(self._connected,), name="penstock-client", daemon=True)
                self._thread.start()
            return self._connected

    def post(self, submission: Submission, transcript: Transcript) -> Future[Acknowledged]:
        """Sends a request; needs a slot, which comes back when the answer is complete or the request did not go out.

        Raises:
            DuplicateRequest: This client sent a request of that `custom_id` before.
            TransportError: The log refuses the record.
        """
        self._register.enter(submission, transcript)
        if self._connected is None:
            self._register.withdraw(submission.custom_id)
            raise BrokerUnavailable("nobody reads the replies any more: submit again")
        try:
            partition = self._the_producer().partition_for(self._topics.requests, submission.key.encode())
            acknowledged = self._send(partition, submission.encode(self._name, self._reply_partition))
        except Exception:
            self._register.withdraw(submission.custom_id)
            raise
        return acknowledged

    def cancel(self, custom_id: str) -> Future[Acknowledged]:
        """Asks the workers to end a request."""
        return self._send(Partition(self._topics.control, 0), encode_control(Cancel(custom_id=custom_id)))

    def abandon(self, custom_id: str) -> None:
        """Gives up on a request that did not go out, as far as can be known."""
        self._register.withdraw(custom_id)

    def disown(self, custom_id: str) -> None:
        """Gives up on a request that is probably out, since whoever wanted it was interrupted."""
        self._register.withdraw(custom_id)
        with suppress(TransportError):
            self.cancel(custom_id)

    def late(self, timeout_s: float | None) -> Exception:
        """What to raise when an answer did not come in time: the log is away, or it is just slow."""
        away_s = self._pulse.away_s(time.monotonic())
        if away_s is not None:
            return BrokerUnavailable(f"the log has been away for {away_s:.1f} s")
        return TimeoutError(f"nothing new within {timeout_s} s")

    def close(self) -> None:
        """Ends the reader thread; requests that are still open go on in the worker, unread."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        if thread is not None:
            thread.join()
        self._register.fail_all(lambda: BrokerUnavailable("the client was closed before the answer was complete"))
        if self._producer is not None:
            self._producer.close(CLOSE_S)
            self._producer = None
        if self._owns_transport:
            self._transport.close()

    def _run(self, connected: Future[None]) -> None:
        """The reader thread, from the first contact to the end."""
        try:
            reader = self._reach()
        except Exception as error:  # noqa: BLE001 -- whatever it is belongs to those who wait
            self._forget_connection()
            connected.set_exception(error)
            return
        connected.set_result(None)
        try:
            while not self._closing.is_set():
                self._poll(reader)
        except Exception as error:  # noqa: BLE001 -- the end of this thread must not leave anybody waiting
            _log.exception("the reader of replies failed")
            self._forget_connection()  # first, so that a request is either failed below or sees that it is too late
            reason = f"the reader of replies failed: {error}"
            self._register.fail_all(lambda: BrokerUnavailable(reason))
        finally:
            self._forget_connection()
            reader.close(0.0)

    def _reach(self) -> Consumer:
        """Makes contact and fixes where this client's replies begin."""
        self._await_log()
        producer = self._the_producer()
        topics = (self._topics.chunks, self._topics.results)
        # One number for both: where a body can't be read, only the worker knows which of them it answers to.
        self._reply_partition = secrets.randbelow(min(producer.partitions(topic) for topic in topics))
        partitions = frozenset(Partition(topic, self._reply_partition) for topic in topics)
        reader = self._transport.reader(partitions)
        try:
            for partition, end in reader.end_offsets(partitions).items():
                reader.seek(partition, end)
        except BaseException:
            reader.close(0.0)
            raise
        self._pulse.beat(time.monotonic())
        return reader

    def _await_log(self) -> None:
        """Pings in short turns, so that `close` need not wait for the whole timeout."""
        until_s = time.monotonic() + self.timeout_s
        while True:
            try:
                self._transport.ping(PING_S)
            except BrokerUnavailable:
                if self._closing.is_set() or time.monotonic() >= until_s:
                    raise
            else:
                return
            self._closing.wait(POLL_S)  # a refused connection fails at once

    def _forget_connection(self) -> None:
        with self._lock:
            self._connected = None

    def _poll(self, reader: Consumer) -> None:
        records = reader.poll(POLL_S, POLL_RECORDS)
        for record in records:
            self._dispatch(record)
        now_s = time.monotonic()
        if records or self._register.is_empty():
            self._pulse.beat(now_s)
        elif self._pulse.is_due(now_s):
            self._probe()

    def _probe(self) -> None:
        try:
            self._transport.ping(PROBE_AFTER_S)
        except BrokerUnavailable as error:
            self._pulse.miss(time.monotonic())
            if (self._pulse.away_s(time.monotonic()) or 0.0) >= self.timeout_s:
                reason = f"no answer from the log for {self.timeout_s:g} s: {error}"
                self._register.fail_all(lambda: BrokerUnavailable(reason))
        else:
            self._pulse.beat(time.monotonic())

    def _dispatch(self, record: Record) -> None:
        """Gives a record to the transcript that it belongs to; other clients' records are not even parsed."""
        headers = dict(record.headers)
        if headers.get(CORRELATION_ID) != self._name.encode() or record.key is None:
            return
        transcript = self._register.find(record.key.decode(errors="replace"))
        if transcript is None:
            return
        try:
            if EVENT in headers:
                transcript.take(decode_event(record.key, record.value, record.headers).event, record.offset)
            else:
                transcript.take_line(decode_result(record.key, record.value, record.headers))
        except PenstockError as error:
            _log.warning("reply passed over (%s): %s/%d/%d", error.code, *record.partition, record.offset)
        if transcript.is_closed:
            self._register.settle(transcript.custom_id)

    def _the_producer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = self._transport.producer()
            return self._producer

    def _send(self, partition: Partition, record: Encoded) -> Future[Acknowledged]:
        sent: Future[Acknowledged] = Future()
        sent.set_running_or_notify_cancel()  # from here on only the log decides how it ends

        def landed(answer: Acknowledged | TransportError) -> None:
            if isinstance(answer, Acknowledged):
                sent.set_result(answer)
            else:
                sent.set_exception(answer)

        try:
            self._the_producer().send(partition, record, landed)
        except ProducerFatal:
            self._discard_producer()
            self._the_producer().send(partition, record, landed)
        return sent

    def _discard_producer(self) -> None:
        with self._lock:
            broken, self._producer = self._producer, None
        if broken is not None:
            broken.close(0.0)
