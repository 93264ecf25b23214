"""The door itself: an Arrow Flight server whose threads read rows and write answers, and never touch an engine."""

import hmac
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import structlog
from pyarrow import flight

from pipeline.offline.flight.exchange import Ended, Exchange, Numbered, Unsound
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.wire import ANSWER_ROWS, WELCOME, DoorFault, Goodbye, answers_schema, check_schema, read_rows, read_wanted, write_answers

log = structlog.get_logger(__name__)

GONE = Ended("the caller is gone", is_retryable=False)
PARTING_S = 10.0
"""How long a caller that was told goodbye may take to hang up."""


class NoMemory(Ended):
    """Rows could not be unpacked; perhaps it was another caller's doing."""

    def __init__(self) -> None:
        super().__init__("the rows take more memory than the door has: send batches of at most 1 MiB, unpacked; or try again", is_retryable=True)


class BearerAuth(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # the library ships no types
    """Lets those in who know the token."""

    def __init__(self, token: str):
        super().__init__()
        self._expected = f"Bearer {token}".encode()

    def start_call(self, info: Any, headers: Mapping[str, Sequence[str]]) -> None:  # noqa: ARG002 -- the library's signature
        """Looks at the token, before anything of the call is read."""
        given = next((values[0] for name, values in headers.items() if name.lower() == "authorization" and values), "")
        if not hmac.compare_digest(given.encode(errors="replace"), self._expected):
            raise flight.FlightUnauthenticatedError("the bearer token is missing or wrong")


class FlightDoor(flight.FlightServerBase):  # type: ignore[misc]  # likewise
    """Takes exchanges in; it listens from the moment that it is made. It goes behind a gate, for it takes messages of any size.

    Args:
        lobby: Where callers wait for the worker's loop.
        location: What Flight calls the address.
        token: What callers have to know.
    """

    def __init__(self, lobby: Lobby, location: str, *, token: str | None = None):
        self._lobby = lobby
        super().__init__(location, middleware=None if token is None else {"auth": BearerAuth(token)})

    def do_action(self, context: Any, action: Any) -> list[bytes]:  # noqa: ARG002 -- the library's signature
        """Tells what the worker is."""
        with _told():
            if action.type != WELCOME:
                raise DoorFault(f"there is one action here: {WELCOME}")
            return [self._lobby.welcome().model_dump_json().encode()]

    def list_actions(self, context: Any) -> list[tuple[str, str]]:  # noqa: ARG002 -- the library's signature
        """Names the actions."""
        return [(WELCOME, "what this worker is and serves")]

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Computes the rows of one caller."""
        with _told():
            wanted = read_wanted(descriptor.command)
            welcome = self._lobby.welcome()
            if wanted.model not in {model.spec.name for model in welcome.models}:
                raise DoorFault(f"no model of that name here; there is {', '.join(sorted(model.spec.name for model in welcome.models))}")
            exchange = Exchange(wanted, rows=welcome.depth)
            self._lobby.enter(exchange)
            try:
                Conversation(exchange, context, reader, writer).run()
            finally:
                self._lobby.leave(exchange)


class Conversation:
    """One exchange on its two threads: a new one reads, that of the call writes."""

    def __init__(self, exchange: Exchange, context: Any, reader: Any, writer: Any):
        self._exchange = exchange
        self._context = context
        self._reader = reader
        self._writer = writer
        self._schema = answers_schema(exchange.wanted.task)
        self._has_all_rows = False
        self._reading = threading.Thread(target=self._read, name="bulk-reader", daemon=True)

    def run(self) -> None:
        """Goes on until every row is answered, or something ends it.

        Raises:
            Ended: Before that.
        """
        started_s = time.monotonic()
        outcome = "ok"
        try:
            self._writer.begin(self._schema)
            self._reading.start()
            self._write()
        except Ended as error:
            outcome = error.message
            self._part(error)
            raise
        except (pa.ArrowException, OSError):  # the way back is broken
            outcome = GONE.message
            self._exchange.end(GONE)
            raise GONE from None
        finally:
            if self._reading.is_alive():
                self._reading.join()  # what it reads from is gone with this call
            wanted, rows, seconds = self._exchange.wanted, self._exchange.answered_rows, round(time.monotonic() - started_s, 3)
            log.info("exchange_finished", task=wanted.task.value, model=wanted.model, rows=rows, seconds=seconds, outcome=outcome)

    def _write(self) -> None:
        while (answers := self._exchange.answers()) is not None:
            if self._context.is_cancelled():
                raise GONE
            for start in range(0, len(answers), ANSWER_ROWS):
                self._send(answers[start : start + ANSWER_ROWS])

    def _send(self, answers: Sequence[Numbered]) -> None:
        self._writer.write_batch(write_answers(answers, self._schema))
        self._exchange.written(len(answers))

    def _part(self, why: Ended) -> None:
        """Ends an exchange whose caller may still send: reading can't be broken off from this side, so it is asked to hang up.

        One that has sent all its rows hears the status at once, which the plainest of callers does not overlook.
        """
        self._exchange.end(why)
        if why is GONE or isinstance(why, Unsound | NoMemory) or self._has_all_rows:
            return
        self._writer.write_metadata(pa.py_buffer(Goodbye(message=why.message, is_retryable=why.is_retryable).model_dump_json().encode()))
        self._reading.join(PARTING_S)

    def _read(self) -> None:
        try:
            check_schema(self._reader.schema)
            while self._take(self._reader.read_chunk()):
                pass
        except StopIteration:
            self._has_all_rows = True
            if self._is_gone():
                self._exchange.end(GONE)
        except DoorFault as error:
            self._exchange.end(Unsound(str(error)))
        except pa.ArrowMemoryError:
            self._exchange.end(NoMemory())
        except (pa.ArrowException, ValueError, OSError, EOFError) as error:
            self._exchange.end(GONE if self._is_gone() else Unsound(f"the rows are no sound Arrow stream ({type(error).__name__})"))
        except Exception:  # a thread that dies in silence would leave its caller waiting for ever
            log.exception("exchange_failed")
            self._exchange.end(Ended("the door failed on these rows", is_retryable=False))
        self._exchange.finish()

    def _take(self, chunk: Any) -> bool:
        """Hands in the rows of a message; tells whether to go on."""
        if chunk.data is None:
            raise DoorFault("a message without rows")
        return all(self._exchange.put(row, self._is_gone) for row in read_rows(chunk.data, self._exchange.wanted))

    def _is_gone(self) -> bool:
        return bool(self._context.is_cancelled())


@contextmanager
def _told() -> Iterator[None]:
    """Turns what ends a call into what Flight tells the caller; of other errors it would tell the traceback."""
    try:
        yield
    except flight.FlightError:
        raise
    except Unsound as error:
        raise flight.FlightServerError(error.message) from None
    except Ended as error:
        kind = flight.FlightUnavailableError if error.is_retryable else flight.FlightInternalError
        raise kind(error.message) from None
    except DoorFault as error:
        raise flight.FlightServerError(str(error)) from None
    except Exception as error:
        log.exception("door_failed")
        raise flight.FlightInternalError(f"the door failed ({type(error).__name__})") from None
