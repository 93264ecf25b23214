"""Rows of somebody else's cluster through a worker's door: what Ray Data, Spark and Daft call for each batch.

    Ray Data    dataset.map_batches(FlightMapper(...), batch_format="pyarrow")
    Spark       frame.mapInArrow(FlightMapper(...).map, schema)
    Daft        a batch method that gives it a table of its column (tests/integration/daft_pipeline.py)

Each process of the cluster makes a connection of its own, when the first batch comes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from pipeline.offline.answer import Answer
from pipeline.offline.fields import QUERY_COLUMN, Fields, of_messages, of_text, text_in
from pipeline.offline.flight.address import AUTO, WorkerAddress
from pipeline.offline.flight.session import Session
from pipeline.offline.flight.stream import to_body
from pipeline.offline.flight.wire import COUNTS, Wanted, Welcome
from pipeline.offline.refusals import Fault, JobRefused
from pipeline.offline.tasks import ERROR_COLUMNS, result_columns
from schemas.errors import InvalidRequest
from schemas.job import Task

PATIENCE_S = 120.0


class FlightMapper:
    """Adds a task's result columns to batches of rows, and `error_code` and `error_message`, which are null where all went well.

    Every row comes back, in its place. One that cannot be computed, such as one whose text is null, empty or too long, has its fault
    in these two and nulls for results, and its neighbours do not notice: what a job writes to its error rows.

    It can be pickled; the connection stays behind. One thread at a time may call it.

    Args:
        task: What to do with each row: generate, chat, embed, classify, rerank or score.
        column: The texts; numbers are spelt. For chat also lists of messages.
        model: Which of the worker's models.
        worker: `unix:///PATH`, `grpc+tls://HOST:PORT`, or `auto` with the worker's data folder.
        data_dir: That folder.
        token: Goes with TLS.
        authorities: Certificates to trust, in PEM; unset: the system's.
        query_column: rerank: the queries.
        patience_s: How long to wait for a worker.
        fields: What all requests share, by the names of the task's OpenAI body: `max_tokens`, `temperature` and the like.

    Raises:
        JobRefused: The address is none.
    """

    def __init__(
        self,
        task: Task | str,
        *,
        column: str,
        model: str,
        worker: str = AUTO,
        data_dir: Path | str = ".",
        token: str | None = None,
        authorities: Path | str | None = None,
        query_column: str = QUERY_COLUMN,
        patience_s: float = PATIENCE_S,
        **fields: Any,
    ):
        self._task = Task(task)
        self._column = column
        self._query_column = query_column
        self._needed = [column, query_column] if self._task is Task.RERANK else [column]
        self._patience_s = patience_s
        self._wanted = Wanted(task=self._task, model=model, fields=fields)
        self._address = WorkerAddress(
            uri=worker,
            data_dir=Path(data_dir),
            token=None if token is None else SecretStr(token),
            authorities=None if authorities is None else Path(authorities),
        )
        self._address.check()
        self._session: Session | None = None
        self._depth = 1

    def __call__(self, rows: Any) -> Any:
        """Computes a batch.

        Args:
            rows: A `pyarrow.Table` or `pyarrow.RecordBatch`; the result is one of the same kind.

        Raises:
            JobRefused: A column is missing, or has a name that results need; the worker has no such model, or does not want such rows.
            WorkerAway: No worker takes rows in time.
            WorkerDied: It died while it had the rows; whoever calls may try again.
        """
        self._check(rows.schema.names)
        answers = self._compute([self._body(row) for row in rows.select(self._needed).to_pylist()])
        for field in self._added:
            rows = rows.append_column(field, pa.array([_value(answer, field.name) for answer in answers], field.type))
        return rows

    def map(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Computes batch after batch."""
        return map(self, batches)

    def close(self) -> None:
        """Hangs up; the next batch makes a new connection."""
        if self._session is not None:
            self._session.abandon()
            self._session = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}

    @property
    def _added(self) -> tuple[Any, ...]:
        return (*result_columns(self._task), *ERROR_COLUMNS)

    def _compute(self, bodies: Sequence[bytes | Fault]) -> list[Answer]:
        done: dict[int, Answer] = {number: Answer(row=number, fault=body) for number, body in enumerate(bodies) if isinstance(body, Fault)}
        rows = [(number, body) for number, body in enumerate(bodies) if not isinstance(body, Fault)]
        try:
            session = self._connected()
            sent = 0
            while len(done) < len(bodies):
                in_flight = sent - (len(done) - (len(bodies) - len(rows)))
                if (room := self._depth - in_flight) > 0 and sent < len(rows):
                    session.send(rows[sent : sent + room])
                    sent = min(sent + room, len(rows))
                done.update(session.poll())
        except BaseException:
            self.close()
            raise
        return [done[number] for number in range(len(bodies))]

    def _connected(self) -> Session:
        if self._session is None:
            self._session = Session(self._address, self._wanted, self._accept, patience_s=self._patience_s)
            self._session.connect()
        return self._session

    def _accept(self, welcome: Welcome) -> None:
        if self._wanted.model not in (names := {served.spec.name for served in welcome.models}):
            raise JobRefused(f"the worker serves no model {self._wanted.model!r}; it serves {', '.join(sorted(names))}")
        self._depth = welcome.depth

    def _check(self, names: Sequence[str]) -> None:
        for name in self._needed:
            if names.count(name) != 1:
                raise JobRefused(f"the rows need one column {name!r}; they have {', '.join(names)}")
        if taken := sorted({field.name for field in self._added} & set(names)):
            raise JobRefused(f"the rows have a column {taken[0]!r}, which the results need: rename it, or leave it out")

    def _body(self, row: Mapping[str, Any]) -> bytes | Fault:
        try:
            return to_body(self._fields(row))
        except InvalidRequest as error:
            return Fault.of(error)

    def _fields(self, row: Mapping[str, Any]) -> Fields:
        if self._task is Task.CHAT and isinstance(row[self._column], list):
            return of_messages(row[self._column])
        query = text_in(row, self._query_column) if self._task is Task.RERANK else ""
        return of_text(self._task, text_in(row, self._column), query)


def _value(answer: Answer, name: str) -> Any:
    if name in COUNTS:
        return None if answer.fault is not None else getattr(answer, name)
    if name in {"error_code", "error_message"}:
        return None if answer.fault is None else getattr(answer.fault, name.removeprefix("error_"))
    return answer.values.get(name)
