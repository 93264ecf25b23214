"""An engine without a model, for tests of everything around one: deterministic, instant, and honest about batching."""

import hashlib
import time
from array import array
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise

from pipeline.engine.base import EngineStats, Job, Likelihood, ModelInfo, RequestKey, StepOutput
from pipeline.engine.stops import StopStrings
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Lane, Sequence
from schemas.errors import InvalidRequest, InvalidToken, PromptTooLong, UnsupportedField
from schemas.events import FinishReason
from schemas.request import ChatBody, CompletionBody, Request, SamplingParams

WORDS = (  # noqa: SIM905 -- sixty quoted words read worse
    "water gate river valve wheel stone bridge mill channel turbine basin spring stream lake rain cloud "
    "morning evening north south old new slow quick small great quiet bright cold warm runs turns "
    "falls rises carries opens closes holds waits flows and then over under through beside while until "
    "the a one every this its our their again always often seldom"
).split()
VOCABULARY = 1_024
END_ID = 0
BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class _Work:
    prompt_ids: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams
    echo: str
    is_continued: bool = True


@dataclass(frozen=True, slots=True)
class _Choice:
    sequence: Sequence
    work: _Work
    stops: StopStrings
    seed: int
    natural_tokens: int


class FakeEngine:
    """Answers each prompt with words that follow from the prompt alone.

    The n-th output id is a hash of (prompt, choice, n), its text a word; after 4 to 63 words, again by hash, the answer ends
    with an end-of-sequence token, which `ignore_eos` and `min_tokens` put off. `max_tokens`, `stop`, `stop_token_ids`, `echo` and
    `n` count; what only shapes a distribution (temperature, penalties, seed) is accepted and changes nothing. Log-probabilities
    are refused; how likely a given text is follows from its ids, by hash. Sequences share steps under the real scheduler.

    Args:
        name: The served model's name.
        max_sequences: Running sequences per step.
        token_budget: Tokens per step.
        context_tokens: Longest prompt and output together.
        step_s: How long a step takes; it sleeps for that long.
    """

    def __init__(self, name: str = "fake", *, max_sequences: int = 64, token_budget: int = 1_024, context_tokens: int = 4_096, step_s: float = 0.0):
        self._info = ModelInfo(
            name=name,
            source="fake",
            revision=None,
            architecture="fake",
            parameters=0,
            dtype="none",
            device="none",
            context_tokens=context_tokens,
            vocabulary=VOCABULARY,
        )
        blocks = max_sequences * -(-context_tokens // BLOCK_TOKENS)
        self._scheduler = Scheduler(BlockPool(blocks, BLOCK_TOKENS), max_sequences=max_sequences, token_budget=token_budget)
        self._choices: dict[RequestKey, dict[int, _Choice]] = {}
        self._step_s = step_s
        self._batch_sequences = self._batch_tokens = 0

    @property
    def info(self) -> ModelInfo:
        """What the engine claims to serve."""
        return self._info

    def warm_up(self) -> None:
        """Nothing is cold."""

    def prepare(self, request: Request) -> Job:
        """Turns the prompt's words into ids and fills in defaults.

        Raises:
            InvalidRequest: The endpoint is not served, the prompt is too long or holds an unknown id, or log-probabilities are asked for.
        """
        body = request.body
        if not isinstance(body, ChatBody | CompletionBody):
            raise InvalidRequest(f"model {self._info.name!r} generates text; it does not serve {request.endpoint}", param="url")
        sampling = body.sampling
        if sampling.logprobs is not None:
            raise UnsupportedField("the fake engine has no log-probabilities", param="logprobs")
        prompt_ids = _prompt_ids(body)
        left = self._info.context_tokens - len(prompt_ids)
        if left < 1:
            raise PromptTooLong(len(prompt_ids), self._info.context_tokens - 1, param="messages" if isinstance(body, ChatBody) else "prompt")
        default = left if isinstance(body, ChatBody) else 16
        max_tokens = min(left, default if sampling.max_tokens is None else sampling.max_tokens)
        return Job(
            prompt_tokens=len(prompt_ids),
            max_output_tokens=max_tokens * sampling.n,
            choices=sampling.n,
            work=_Work(prompt_ids, max_tokens, sampling, _echo(body)),
        )

    def prepare_likelihood(self, text: str | Seq[int]) -> Job:
        """Turns the text's words into ids.

        Raises:
            InvalidRequest: The text is too short, too long, or holds an unknown id.
        """
        token_ids = _text_ids(text) if isinstance(text, str) else _known(tuple(text))
        if len(token_ids) < 2:
            raise InvalidRequest("the text has fewer than two tokens, and the first one's likelihood is not known", param="prompt")
        if len(token_ids) > self._info.context_tokens:
            raise PromptTooLong(len(token_ids), self._info.context_tokens, param="prompt")
        work = _Work(token_ids, 1, SamplingParams(max_tokens=1), "", is_continued=False)
        return Job(prompt_tokens=len(token_ids), max_output_tokens=0, choices=1, work=work)

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        """Queues one sequence per choice."""
        work: _Work = job.work
        digest = hashlib.blake2b(array("q", work.prompt_ids).tobytes(), digest_size=8).digest()
        self._choices[key] = {}
        for index in range(job.choices):
            seed = _mix(int.from_bytes(digest, "little") + index)
            sequence = Sequence(key=key, index=index, lane=lane, tenant=job.tenant, prompt_ids=work.prompt_ids, arrived_s=now_s)
            self._choices[key][index] = _Choice(sequence, work, StopStrings(work.sampling.stop), seed, 4 + seed % 60)
            self._scheduler.add(sequence)

    def cancel(self, key: RequestKey) -> None:
        """Drops a request; unknown keys are ignored."""
        for choice in self._choices.pop(key, {}).values():
            self._scheduler.finish(choice.sequence)

    def has_work(self) -> bool:
        """Tells whether a step would do anything."""
        return self._scheduler.has_work()

    def step(self, now_s: float) -> Seq[StepOutput]:
        """Gives every sequence whose prompt is done one more word."""
        started_s = time.perf_counter()
        batch = self._scheduler.plan(now_s)
        self._batch_sequences, self._batch_tokens = batch.sequences, batch.tokens
        if self._step_s:
            time.sleep(self._step_s)
        sampled = batch.decodes + [chunk.sequence for chunk in batch.prefills if chunk.samples]
        self._scheduler.advance(batch)
        self._scheduler.close(batch, time.perf_counter() - started_s)
        return [self._extend(self._choices[sequence.key][sequence.index]) for sequence in sampled]

    def stats(self) -> EngineStats:
        """Reads the scheduler's gauges."""
        scheduler = self._scheduler
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            waiting_tokens=scheduler.waiting_tokens,
            kv_blocks_used=scheduler.pool.used,
            kv_blocks_total=scheduler.pool.total,
            batch_sequences=self._batch_sequences,
            batch_tokens=self._batch_tokens,
            batch_closed=scheduler.closed,
            preemptions_total=scheduler.preemptions_total,
            deferrals_total=scheduler.waiting.deferrals_total,
        )

    def closed_batches(self) -> Seq[ClosedBatch]:
        """Explains the last steps."""
        return self._scheduler.history.read()

    def close(self) -> None:
        """Holds nothing to free."""

    def _extend(self, choice: _Choice) -> StepOutput:
        sequence, sampling = choice.sequence, choice.work.sampling
        if not choice.work.is_continued:
            self._end(sequence)
            return StepOutput(key=sequence.key, likelihood=_likelihood(choice.work.prompt_ids), finish_reason=FinishReason.STOP)
        position = len(sequence.output_ids)
        ends = position >= max(choice.natural_tokens, sampling.min_tokens) and not sampling.ignore_eos
        token = END_ID if ends else 1 + _mix(choice.seed + position) % (VOCABULARY - 1)
        sequence.output_ids.append(token)
        stopped = ends or (token in sampling.stop_token_ids and position >= sampling.min_tokens)
        text = choice.work.echo if position == 0 else ""
        text += choice.stops.feed("" if stopped else word(token, position))
        stopped = stopped or choice.stops.matched
        reason = FinishReason.STOP if stopped else FinishReason.LENGTH if position + 1 == choice.work.max_tokens else None
        if reason:
            text += choice.stops.flush()
            self._end(sequence)
        return StepOutput(key=sequence.key, index=sequence.index, token_ids=(token,), text=text, finish_reason=reason)

    def _end(self, sequence: Sequence) -> None:
        self._scheduler.finish(sequence)
        choices = self._choices[sequence.key]
        del choices[sequence.index]
        if not choices:
            del self._choices[sequence.key]


def word(token: int, position: int) -> str:
    """The text of an output id: its word, after a space unless it is the first."""
    text = WORDS[token % len(WORDS)]
    return " " + text if position else text


def _echo(body: ChatBody | CompletionBody) -> str:
    """What the answer begins with: the prompt, where that is asked for."""
    if not (isinstance(body, CompletionBody) and body.echo):
        return ""
    return body.prompt if isinstance(body.prompt, str) else "".join(word(token, place) for place, token in enumerate(body.prompt))


def _prompt_ids(body: ChatBody | CompletionBody) -> tuple[int, ...]:
    if isinstance(body, CompletionBody) and not isinstance(body.prompt, str):
        return _known(body.prompt)
    return _text_ids(" ".join(f"{m.role} {m.text}" for m in body.messages) if isinstance(body, ChatBody) else str(body.prompt))


def _known(token_ids: tuple[int, ...]) -> tuple[int, ...]:
    if unknown := [token for token in token_ids if not 0 <= token < VOCABULARY]:
        raise InvalidToken(f"token id {unknown[0]} is outside the vocabulary of {VOCABULARY}", param="prompt")
    return token_ids


def _text_ids(text: str) -> tuple[int, ...]:
    words = text.split() or [text]
    return tuple(
        1 + int.from_bytes(hashlib.blake2b(w.encode(errors="surrogatepass"), digest_size=4).digest(), "little") % (VOCABULARY - 1) for w in words
    )


def _likelihood(token_ids: tuple[int, ...]) -> Likelihood:
    """Each token but the first has a log-probability between -4 and 0 that follows from it and the one before."""
    logprobs = [-4 * (_mix(before * VOCABULARY + token) % 1_000) / 1_000 for before, token in pairwise(token_ids)]
    return Likelihood(sum(logprobs), len(logprobs))


def _mix(value: int) -> int:
    """Splitmix64's finaliser (Steele, Lea and Flood 2014)."""
    mask = (1 << 64) - 1
    value = (value * 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)
