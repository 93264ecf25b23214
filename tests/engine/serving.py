"""An engine in a test's hands: what is asked of it, and what came back."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.engine.base import Engine, StepOutput
from pipeline.engine.loading import build
from pipeline.engine.planning import Planning
from pipeline.engine.vocabulary import Vocabulary
from pipeline.scheduling.budget import Budget
from pipeline.scheduling.policy import Policy
from pipeline.scheduling.sequence import Lane
from pipeline.settings import EngineSettings, ModelSettings
from schemas.errors import PenstockError
from schemas.events import FinishReason
from schemas.record import Origin, ReplyAddress
from schemas.request import Endpoint, Request, parse_body

SMALL = EngineSettings(max_sequences=4, token_budget=16, block_tokens=4, kv_cache_mib=4, threads=1)


def engine_of(network: Any, tokenizer: Any = None, settings: EngineSettings = SMALL, policy: Policy | None = None) -> Any:
    """An engine over a copy of a model in memory: what is served is rewritten."""
    network = copy.deepcopy(network)
    vocabulary = None if tokenizer is None else Vocabulary(tokenizer)
    return build(network, vocabulary, ModelSettings(name="tiny", source="tiny"), settings, Planning(policy=policy))


def request(endpoint: Endpoint, **body: Any) -> Request:
    """A request as the worker would hand it over."""
    return Request(
        custom_id="c",
        endpoint=endpoint,
        body=parse_body(endpoint, {"model": "tiny"} | body),
        origin=Origin(topic="t", partition=0, offset=0),
        reply=ReplyAddress(custom_id="c", correlation_id=None),
        timestamp_ms=0,
    )


def completion(prompt: str | list[int], **body: Any) -> Request:
    """A completion, greedy unless `body` says otherwise."""
    return request(Endpoint.COMPLETIONS, **({"prompt": prompt, "temperature": 0} | body))


def chat(*contents: str, **body: Any) -> Request:
    """A chat of user and assistant in turns, greedy unless `body` says otherwise."""
    messages = [{"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)]
    return request(Endpoint.CHAT, **({"messages": messages, "temperature": 0} | body))


@dataclass
class Answer:
    """What came of one choice."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: PenstockError | None = None
    outputs_after_the_end: int = 0

    def take(self, output: StepOutput) -> None:
        """Adds one step's output."""
        self.outputs_after_the_end += self.finish_reason is not None or self.error is not None
        self.token_ids += output.token_ids
        self.text += output.text
        self.pieces.append(output.text)
        if output.logprobs is not None:
            self.logprobs.append(output.logprobs)
        self.finish_reason, self.error = output.finish_reason, output.error


def serve(
    engine: Engine,
    requests: list[Request],
    *,
    arrivals: list[int] | None = None,
    lanes: list[Lane] | None = None,
    tenants: list[str] | None = None,
    between: Callable[[int], None] | None = None,
) -> dict[tuple[int, int], Answer]:
    """Steps until all is answered; request `i` has key `i` and arrives before step `arrivals[i]` (the first, by default).

    Returns:
        Answers by (key, choice).
    """
    due = sorted(range(len(requests)), key=lambda i: arrivals[i] if arrivals else 0)
    answers: dict[tuple[int, int], Answer] = {}
    step = 0
    while due or engine.has_work():
        while due and (arrivals[due[0]] if arrivals else 0) <= step:
            key = due.pop(0)
            job = replace(engine.prepare(requests[key]), tenant=tenants[key] if tenants else "")
            engine.add(key, job, lanes[key] if lanes else Lane.DEFAULT, float(step))
        if between:
            between(step)
        for output in engine.step(float(step)):
            answers.setdefault((output.key, output.index), Answer()).take(output)
        assert_blocks_are_conserved(engine)
        step += 1
        assert step < 10_000, "the engine never ends"
    return answers


def assert_blocks_are_conserved(engine: Any) -> None:
    """Every block is held by who runs, idle or empty; asked after each step."""
    scheduler = engine._scheduler
    scheduler.pool.check(sequence.block_table for sequence in scheduler.running)


def begin_anew(engine: Any, *, tokens: int, sequences: int) -> None:
    """Lets one engine serve many examples, each with a budget of its own: to build one takes longer. Nothing that failed is left in it."""
    for key in list(engine._requests):
        engine.cancel(key)
    engine._scheduler.budget = Budget(tokens=tokens, sequences=sequences)


def ids_of(engine: Engine, requests: list[Request], **options: Any) -> list[list[int]]:
    """The output ids of the first choice of each request."""
    answers = serve(engine, requests, **options)
    assert not any(answer.outputs_after_the_end for answer in answers.values())
    return [answers[key, 0].token_ids for key in range(len(requests))]
