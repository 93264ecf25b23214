"""Answers to deterministic requests, kept to be given again. Pure: time is an argument.

A request is deterministic when its output follows from it alone: greedy (temperature 0), seeded, or without a draw at all, as
embeddings are. What a model elsewhere answers does not count: it may change unseen.
"""

import json
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import blake2b
from sys import getsizeof
from typing import TYPE_CHECKING, Any

from pipeline.engine.base import Job, ModelInfo, RequestKey, StepOutput
from schemas.events import FinishReason, Usage
from schemas.json_value import dump
from schemas.request import GenerationBody, Request
from schemas.results import join_logprobs

if TYPE_CHECKING:  # it brings numpy along, which engines without tensors do not need
    from schemas.pooled_results import Pooled

UNHEARD = {"stream", "stream_options", "service_tier", "user", "metadata"}
"""Fields that do not change what the model says."""
DRAWING = {"seed", "top_p", "top_k", "min_p"}
"""Fields that do not either where the likeliest token is always taken."""
REMOTE = "remote"
ENTRY_OVERHEAD_BYTES = 512
"""What an entry weighs besides its content: its key, its place in the order, its objects."""
LARGEST_SHARE = 8
"""An answer larger than this part of the cache would push out too many others."""


@dataclass(frozen=True, slots=True)
class _Choice:
    text: str
    token_ids: "array[int]"
    logprobs: bytes | None
    finish_reason: FinishReason

    def size_bytes(self) -> int:
        return getsizeof(self.text) + getsizeof(self.token_ids) + len(self.logprobs or b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One whole answer. `at_s` is when it was made."""

    choices: tuple[_Choice, ...]
    pooled: "Pooled | None"
    usage: Usage
    at_s: float

    @property
    def job(self) -> Job:
        """What admission has to know of a request that is answered with this: it gives an engine nothing to do."""
        return Job(prompt_tokens=self.usage.prompt_tokens, max_output_tokens=0, choices=len(self.choices), work=None)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the last choice ended."""
        return self.choices[-1].finish_reason

    def outputs(self, key: RequestKey) -> Iterator[StepOutput]:
        """The answer as one output per choice."""
        for index, choice in enumerate(self.choices):
            yield StepOutput(
                key=key,
                index=index,
                token_ids=tuple(choice.token_ids),
                text=choice.text,
                logprobs=None if choice.logprobs is None else json.loads(choice.logprobs),
                pooled=self.pooled,
                finish_reason=choice.finish_reason,
            )

    def size_bytes(self) -> int:
        """What it counts for."""
        pooled_bytes = 0 if self.pooled is None else self.pooled.rows.nbytes
        return ENTRY_OVERHEAD_BYTES + pooled_bytes + sum(choice.size_bytes() for choice in self.choices)


@dataclass(slots=True)
class _Heard:
    text: list[str] = field(default_factory=list)
    token_ids: "array[int]" = field(default_factory=lambda: array("q"))
    logprobs: list[dict[str, Any] | None] = field(default_factory=list)
    finish_reason: FinishReason = FinishReason.STOP


@dataclass(slots=True)
class Recording:
    """Listens to an answer while it is made; `key` is where it will be found."""

    key: bytes
    _choices: dict[int, _Heard] = field(default_factory=dict)
    _pooled: "Pooled | None" = None

    def take(self, output: StepOutput) -> None:
        """Hears one output."""
        if (heard := self._choices.get(output.index)) is None:
            heard = self._choices[output.index] = _Heard()
        heard.text.append(output.text)
        heard.token_ids.extend(output.token_ids)
        if output.logprobs is not None:
            heard.logprobs.append(output.logprobs)
        heard.finish_reason = output.finish_reason or heard.finish_reason
        self._pooled = output.pooled or self._pooled

    def restart(self) -> None:
        """Forgets what was heard: the engine starts again."""
        self._choices.clear()
        self._pooled = None

    def finish(self, usage: Usage, now_s: float) -> Stored:
        """Makes the entry of an answer that ended well."""
        choices = tuple(
            _Choice(
                text="".join(heard.text),
                token_ids=heard.token_ids,
                logprobs=dump(reduce(join_logprobs, heard.logprobs)) if heard.logprobs else None,
                finish_reason=heard.finish_reason,
            )
            for _, heard in sorted(self._choices.items())
        )
        return Stored(choices=choices, pooled=self._pooled, usage=replace(usage, is_cached=True), at_s=now_s)


class ResponseCache:
    """Keeps the answers used last, within its bytes and its age.

    Args:
        max_bytes: What all entries together may weigh.
        max_age_s: How long an entry is good.
    """

    def __init__(self, *, max_bytes: int, max_age_s: float):
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._entries: OrderedDict[bytes, Stored] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        """Entries."""
        return len(self._entries)

    def get(self, key: bytes, now_s: float) -> Stored | None:
        """Finds an answer that is not too old; it counts as used."""
        stored = self._entries.get(key)
        if stored is None:
            return None
        if now_s - stored.at_s > self._max_age_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return stored

    def put(self, key: bytes, stored: Stored) -> None:
        """Keeps an answer, and drops those used longest ago where it needs room."""
        size_bytes = stored.size_bytes()
        if size_bytes * LARGEST_SHARE > self._max_bytes:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = stored
        self.size_bytes += size_bytes
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self.size_bytes -= self._entries.pop(key).size_bytes()


def cache_key(request: Request, tenant: str, model: ModelInfo) -> bytes | None:
    """Where the answer to a request is kept; None where each answer is a draw of its own.

    It covers the tenant, the model with its source, revision, precision and device, the endpoint and every field that counts, with
    the defaults filled in. The tokenizer comes with the model's source and revision.
    """
    body = request.body
    unheard = UNHEARD
    if isinstance(body, GenerationBody):
        is_greedy = body.temperature == 0.0
        if body.seed is None and not is_greedy:
            return None
        unheard = UNHEARD | DRAWING if is_greedy else UNHEARD
    if model.device == REMOTE:
        return None
    digest = blake2b(digest_size=32)
    for part in (tenant, repr(model), request.endpoint, body.model_dump_json(exclude=unheard, warnings=False)):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)  # lengths keep the parts apart
    return digest.digest()
