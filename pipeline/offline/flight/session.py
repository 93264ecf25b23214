"""A caller's dealings with a worker, whatever becomes of the connection: rows without answers are sent again."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import structlog
from pyarrow import flight
from pydantic import ValidationError

from pipeline.offline.flight.address import TLS, UNIX, WorkerAddress, WorkerAway
from pipeline.offline.flight.stream import Body, Broken, Numbered, Stream, said
from pipeline.offline.flight.wire import WELCOME, Wanted, Welcome
from pipeline.offline.refusals import JobRefused

log = structlog.get_logger(__name__)

CALL_S = 10.0
POLL_S = 0.05
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.1, 5.0
KEEPALIVE_MS = 300_000
"""How often a silent worker is asked for a sign of life: as often as gRPC's servers allow."""


class WorkerDied(Exception):
    """The worker's process ended with rows of this caller in flight: one of them may have been why.

    It is no `OSError`: a job that sees it ends its attempt at a shard as a death does, and finds the row by running suspects alone.
    """


class Session:
    """Sends rows and gets answers. Faults that a retry can help are waited out. Not for use from several threads.

    Args:
        address: Where the worker is.
        wanted: What is asked of each row.
        accept: Looks at what a worker is, each time one is met; raises JobRefused where it is not the right one.
        patience_s: How long to wait for a worker to be there and to take rows.
    """

    def __init__(
        self,
        address: WorkerAddress,
        wanted: Wanted,
        accept: Callable[[Welcome], None],
        *,
        patience_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self._address = address
        self._wanted = wanted
        self._accept = accept
        self._patience_s = patience_s
        self._clock_s = clock_s
        self._client: Any = None
        self._stream: Stream | None = None
        self._flying: dict[int, bytes] = {}
        self._instance: str | None = None
        self._is_suspicious = False
        self._away_since_s: float | None = None
        self._retry_at_s = 0.0
        self._pause_s = SHORTEST_RETRY_S

    def connect(self) -> None:
        """Waits for a worker.

        Raises:
            WorkerAway: None came in time.
            JobRefused: It is not the right one.
        """
        while self._stream is None:
            self._try_to_connect()

    def send(self, rows: Sequence[Body]) -> None:
        """Queues rows, whether a worker is there or not."""
        self._flying.update(rows)
        if self._stream is not None:
            self._stream.send(rows)

    def poll(self) -> list[Numbered]:
        """Answers, after a moment's wait for the first. Without rows in flight it returns at once.

        Raises:
            WorkerAway: No worker came back in time.
            WorkerDied: Another one came back, or none, and the former one said no goodbye.
            JobRefused: The worker does not want these rows.
        """
        if not self._flying:
            return []
        if self._stream is None:
            self._try_to_connect()
            return []
        try:
            arrived = [answer for answer in self._stream.take(POLL_S) if self._flying.pop(answer[0], None) is not None]
        except Broken as broken:
            self._break(broken)
            return []
        if arrived:
            self._away_since_s, self._pause_s = None, SHORTEST_RETRY_S
        return arrived

    def abandon(self) -> None:
        """Forgets the rows in flight; the worker cancels them."""
        self._hang_up()
        self._flying.clear()
        self._is_suspicious, self._away_since_s = False, None

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close(is_done=not self._flying)
            self._stream = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def _break(self, broken: Broken) -> None:
        self._hang_up()
        if broken.is_refused:
            raise JobRefused(f"the worker refuses the rows: {broken.message}")
        self._is_suspicious = self._is_suspicious or (broken.was_entered and not broken.was_told)
        self._wait_on(broken.message)

    def _try_to_connect(self) -> None:
        """Tries once, when it is time to; a session without a stream afterwards is to try again."""
        now_s = self._clock_s()
        if now_s < self._retry_at_s:
            time.sleep(min(self._retry_at_s - now_s, POLL_S))
            return
        try:
            self._stream = self._open()
        except WorkerAway as error:
            self._hang_up()
            self._wait_on(str(error))
        except BaseException:
            self._hang_up()
            raise
        else:
            self._stream.send(list(self._flying.items()))

    def _open(self) -> Stream:
        """Meets a worker.

        Raises:
            WorkerAway: There is none, or it does not serve.
            WorkerDied: It is another one than that which had the rows, and that one did not say goodbye.
            JobRefused: It lets nobody in without the token, or is not the right one.
        """
        self._client, options = _reach(self._address)
        welcome = _greet(self._client, options)
        former, self._instance = self._instance, welcome.instance
        is_suspicious, self._is_suspicious = self._is_suspicious, False
        if is_suspicious and former != welcome.instance:
            raise WorkerDied("the worker died with rows of this job, and another one has come")
        self._accept(welcome)
        return Stream(self._client, self._wanted, options(None))

    def _wait_on(self, why: str) -> None:
        """Puts off the next attempt, or gives up.

        Raises:
            WorkerAway: The patience is at its end.
            WorkerDied: Likewise, and nobody knows what became of the worker that had the rows.
        """
        now_s = self._clock_s()
        if self._away_since_s is None:
            self._away_since_s = now_s
            log.warning("worker_away", detail=why)
        if now_s - self._away_since_s >= self._patience_s:
            self._away_since_s = None
            is_suspicious, self._is_suspicious = self._is_suspicious, False
            if is_suspicious:
                raise WorkerDied(f"the worker died with rows of this job, and has not come back: {why}")
            raise WorkerAway(f"no worker takes rows: {why}")
        self._retry_at_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_RETRY_S)


def meet(address: WorkerAddress) -> Welcome:
    """Asks a worker what it is.

    Raises:
        WorkerAway: There is none, or it does not serve.
        JobRefused: It lets nobody in without the token.
    """
    client, options = _reach(address)
    with client:
        return _greet(client, options)


def _greet(client: Any, options: Callable[[float | None], Any]) -> Welcome:
    try:
        answer = next(iter(client.do_action(flight.Action(WELCOME, b""), options(CALL_S))))
        return Welcome.model_validate_json(answer.body.to_pybytes())
    except (flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError, ValidationError) as error:
        raise JobRefused(f"the worker lets nobody in: {said(error)}") from None
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise WorkerAway(said(error)) from None


def _reach(address: WorkerAddress) -> tuple[Any, Callable[[float | None], Any]]:
    """A client, and the options of its calls."""
    uri, token = address.resolve(), address.token
    headers = [] if token is None or not uri.startswith(TLS) else [(b"authorization", f"Bearer {token.get_secret_value()}".encode())]
    location = f"grpc+unix://{uri.removeprefix(UNIX)}" if uri.startswith(UNIX) else uri
    try:
        client = flight.FlightClient(location, tls_root_certs=address.authorities_pem(), generic_options=[("grpc.keepalive_time_ms", KEEPALIVE_MS)])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise JobRefused(f"{uri} is no address of a worker: {said(error)}") from None
    return client, lambda timeout_s: flight.FlightCallOptions(timeout=timeout_s, headers=headers)
