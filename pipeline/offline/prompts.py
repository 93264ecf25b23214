"""From a row to what a model is asked: by template, column, messages, or the request that the row is."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.offline.fields import QUERY_COLUMN, of_messages, of_text, parse, text_in
from pipeline.offline.refusals import JobRefused
from pipeline.offline.tasks import ENDPOINTS, GENERATING
from pipeline.offline.template import ROW, PromptTemplate
from schemas.errors import InvalidRequest, UnknownModel
from schemas.generation import Generation
from schemas.job import JobSpec, Task
from schemas.record import Origin, ReplyAddress
from schemas.request import Endpoint, Request, parse_body

REQUEST_COLUMNS = ("custom_id", "url", "body")
HEAD_CHARACTERS = 256
"""What tells prompts that begin alike."""
Identity = tuple[int, int, int]
"""A row's file, row group and ordinal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A row made ready.

    Attributes:
        row: Its place in the shard.
        request: What the model is asked.
        fields: Its body, as JSON has it.
        text: What the prompt begins with, for those that begin alike.
        size: Length of the prompt, in characters; good enough to sort by.
        digest: The same for rows that get the same answer for sure; None where answers are drawn.
    """

    row: int
    request: Request
    fields: Mapping[str, Any]
    text: str
    size: int
    digest: bytes | None


def needed_columns(spec: JobSpec, schema: Any) -> frozenset[str]:
    """The columns that prompts are made of.

    Raises:
        JobRefused: The inputs lack one.
    """
    prompt = spec.prompt
    wanted: Collection[str] = [name for name in (prompt.column, prompt.messages_column) if name is not None]
    if prompt.template is not None:
        names = PromptTemplate(prompt.template).names
        wanted = schema.names if ROW in names - set(schema.names) else names
    if prompt.is_request:
        wanted = REQUEST_COLUMNS
    elif spec.task is Task.RERANK:
        wanted = [*wanted, prompt.query_column or QUERY_COLUMN]
    if missing := sorted(set(wanted) - set(schema.names)):
        hint = "; give --template, --column or --messages-column" if prompt.is_request else ""
        raise JobRefused(f"the inputs have no column {missing[0]!r}; they have {', '.join(schema.names)}{hint}")
    return frozenset(wanted) or frozenset(schema.names[:1])  # rows are counted by a column, also where a template shows none


class Asking:
    """Makes requests of the rows of one job."""

    def __init__(self, spec: JobSpec):
        self._spec = spec
        self._template = None if spec.prompt.template is None else PromptTemplate(spec.prompt.template)
        self._fixed = _fixed(spec)
        self._job = spec.fingerprint

    def ask(self, place: int, identity: Identity, row: Mapping[str, Any]) -> Ask:
        """Makes the request of one row.

        Raises:
            InvalidRequest: It has no prompt, or none that the endpoint takes; the message holds nothing of it.
        """
        if self._spec.prompt.is_request:
            fields, text = self._own(row)
        elif self._spec.prompt.messages_column is not None:
            fields, text = self._of_messages(row[self._spec.prompt.messages_column])
        else:
            query = text_in(row, self._spec.prompt.query_column or QUERY_COLUMN) if self._spec.task is Task.RERANK else ""
            fields, text = self._of_text(self._text(row), query)
        return self._made(place, identity, fields, text)

    def probe(self) -> Ask:
        """A request such as those of the rows, to find out whether a model takes any."""
        fields, text = self._of_text("a short text", "a query")
        return self._made(0, (0, 0, 0), fields, text)

    def _made(self, place: int, identity: Identity, fields: dict[str, Any], text: str) -> Ask:
        endpoint = ENDPOINTS[self._spec.task]
        is_drawn = endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS) and fields.get("temperature", 1.0) != 0
        digest = None if is_drawn else _digest(fields)
        if is_drawn and not (self._spec.prompt.is_request and "seed" in fields):
            fields["seed"] = seed_of(self._job, identity)
        body = parse_body(endpoint, fields)
        if isinstance(body, Generation) and body.n > 1:
            raise InvalidRequest("n must be 1 in a job: a row has one output", param="n")
        name = "/".join(map(str, identity))
        request = Request(
            custom_id=name,
            endpoint=endpoint,
            body=body,
            origin=Origin("offline", identity[0], identity[2], identity[1]),
            reply=ReplyAddress(custom_id=name, correlation_id=name, stream=False),
            timestamp_ms=0,
        )
        return Ask(row=place, request=request, fields=fields, text=text[:HEAD_CHARACTERS], size=len(text), digest=digest)

    def _of_messages(self, value: Any) -> tuple[dict[str, Any], str]:
        """A body's fields, and the text that they hold."""
        fields = of_messages(value)
        return self._fixed | fields, "".join(str(message.get("content")) for message in fields["messages"])

    def _of_text(self, text: str, query: str) -> tuple[dict[str, Any], str]:
        return self._fixed | of_text(self._spec.task, text, query), query + text

    def _text(self, row: Mapping[str, Any]) -> str:
        return self._template.render(row) if self._template is not None else text_in(row, str(self._spec.prompt.column))

    def _own(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The request that the row is: a line of a Batch file."""
        wanted = ENDPOINTS[self._spec.task]
        if row["url"] != wanted:
            raise InvalidRequest(f"url must be {wanted} in a job with task {self._spec.task}", param="url")
        fields = parse(row["body"]) if isinstance(row["body"], str) else row["body"]
        if not isinstance(fields, dict):
            raise InvalidRequest("body is missing or no object", param="body")
        fields = {name: value for name, value in fields.items() if value is not None}
        if fields.get("model") != self._spec.model.name:
            raise UnknownModel(f"the job's model is {self._spec.model.name!r}: give the model that name, or the lines this one", param="model")
        if self._spec.task in GENERATING:
            fields.pop("stream", None)
            fields.pop("stream_options", None)
        else:
            fields |= self._fixed
        return fields, json.dumps(fields, ensure_ascii=False, sort_keys=True)


def seed_of(job: str, identity: Identity) -> int:
    """The row's own seed, the same in every attempt."""
    digest = hashlib.blake2b(f"{job}/{'/'.join(map(str, identity))}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _fixed(spec: JobSpec) -> dict[str, Any]:
    """What is the same in every row's body."""
    sampling = spec.sampling
    fixed: dict[str, Any] = {"model": spec.model.name}
    if spec.task is Task.SCORE:
        return fixed | {"max_tokens": 1, "temperature": 0.0}  # nothing is drawn: the text is read, not continued
    if spec.task not in GENERATING:
        return fixed
    given = sampling.model_dump(exclude={"seed", "stop", "ignore_eos"})
    return fixed | given | {"stop": list(sampling.stop) or None, "ignore_eos": sampling.ignore_eos}


def _digest(fields: Mapping[str, Any]) -> bytes:
    content = json.dumps(fields, sort_keys=True).encode(errors="surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()
