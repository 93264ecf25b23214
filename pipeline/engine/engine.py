"""One model of transformers, continuously batched: plan, run, sample, show."""

import math
import time
import traceback
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from pipeline.engine.base import EngineStats, Job, ModelInfo, RequestKey, StepOutput
from pipeline.engine.choice import Choice
from pipeline.engine.detokenizer import detokenizer
from pipeline.engine.execution import Execution
from pipeline.engine.likelihood import GivenText, Reading
from pipeline.engine.planning import Learned
from pipeline.engine.preparation import Preparation
from pipeline.engine.sampler import NOT_A_NUMBER, Draws, Sampler, TokenLogprobs
from pipeline.engine.scoring import score
from pipeline.engine.stops import StopStrings
from pipeline.engine.vocabulary import Vocabulary
from pipeline.engine.work import Work
from pipeline.scheduling.batch import Batch, Chunk
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Group, Lane, Sequence
from schemas.errors import EngineError
from schemas.events import FinishReason
from schemas.request import Request, SamplingParams

log = structlog.get_logger(__name__)

WARM_UP: RequestKey = -1
"""The warm-up's own request; the worker counts from 0."""


@dataclass(frozen=True, slots=True, eq=False)
class _Ran:
    """A part of a batch that went through: what was computed, what was sampled, and what the tokens of prompts scored."""

    batch: Batch
    samples: Seq[Sequence]
    draws: Draws
    scored: Seq[Chunk]
    scores: Seq[list[TokenLogprobs]]


class TransformersEngine:
    """Serves one causal language model; built by `loading.load`."""

    def __init__(
        self,
        *,
        info: ModelInfo,
        preparation: Preparation,
        scheduler: Scheduler,
        execution: Execution,
        sampler: Sampler,
        vocabulary: Vocabulary | None,
        prefix_cache: bool,
        learned: Learned,
    ):
        self._info = info
        self._preparation = preparation
        self._scheduler = scheduler
        self._execution = execution
        self._sampler = sampler
        self._vocabulary = vocabulary
        self._prefix_cache = prefix_cache
        self._learned = learned
        self._requests: dict[RequestKey, list[Sequence]] = {}
        self._choices: dict[Sequence, Choice | Reading] = {}
        self._batch_sequences = self._batch_tokens = 0
        self._is_short_of_memory = False

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._info

    def prepare(self, request: Request) -> Job:
        """Validates and tokenises; see `Preparation`."""
        return self._preparation.prepare(request)

    def prepare_likelihood(self, text: str | Seq[int]) -> Job:
        """Validates and tokenises; see `Preparation`."""
        return self._preparation.prepare_likelihood(text)

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        """Queues one sequence per choice of the job, or the one of a text that is only read."""
        if isinstance(job.work, GivenText):
            reading = Reading.of(job.work, key, lane, now_s)
            reading.sequence.tenant, reading.sequence.deadline_s, reading.sequence.max_output_tokens = job.tenant, job.deadline_s, 0
            self._queue(key, [reading])
            return
        work: Work = job.work
        salt = job.tenant if self._prefix_cache else None
        sequences = [
            Sequence(
                key=key,
                index=i,
                lane=lane,
                tenant=job.tenant,
                prompt_ids=work.prompt_ids,
                arrived_s=now_s,
                deadline_s=job.deadline_s,
                max_output_tokens=work.max_tokens,
                salt=salt,
            )
            for i in range(job.choices)
        ]
        group = Group(list(sequences), scores_prompt=work.scores_prompt) if job.choices > 1 or work.scores_prompt else None
        scores: list[TokenLogprobs] = []
        for sequence in sequences:
            sequence.group = group
        vocabulary, stop = self._vocabulary, work.sampling.stop
        self._queue(key, [Choice(sequence, work, vocabulary, detokenizer(vocabulary), StopStrings(stop), scores) for sequence in sequences])

    def cancel(self, key: RequestKey) -> None:
        """Drops a request at once: nothing of it is in flight between steps."""
        for sequence in self._requests.get(key, []).copy():
            self._end(sequence)

    def has_work(self) -> bool:
        """Tells whether a step would do anything."""
        return self._scheduler.has_work()

    def step(self, now_s: float) -> Seq[StepOutput]:
        """Runs one batch: plan, run, sample, show."""
        started_s = time.perf_counter()
        batch = self._scheduler.plan(now_s)
        self._batch_sequences, self._batch_tokens = batch.sequences, batch.tokens
        for sequence in batch.admitted:
            self._execution.admit(sequence)
            if isinstance(choice := self._choices[sequence], Choice):
                self._sampler.admit(sequence, choice.work)
        for sequence in batch.grown:
            self._execution.grow(sequence)
        if batch.copies:
            self._execution.copy(batch.copies)
        failed: dict[Sequence, str] = {}
        outputs: list[StepOutput] = []
        runs = self._run(batch, failed) if batch.sequences else []
        for ran in runs:
            outputs += self._advance(ran, failed)
        outputs += [self._fail(sequence, reason) for sequence, reason in failed.items() if sequence in self._choices]
        self._scheduler.close(batch, time.perf_counter() - started_s, is_whole=len(runs) == 1)
        self._learned.save_if_due(now_s)
        if self._is_short_of_memory:
            self._relieve()
        return outputs

    def stats(self) -> EngineStats:
        """Reads the gauges."""
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
            step_error_p95=scheduler.policy.error_p95(),
            preemptions_total=scheduler.preemptions_total,
            deferrals_total=scheduler.waiting.deferrals_total,
            prefix_query_tokens_total=scheduler.prefix_query_tokens_total,
            prefix_hit_tokens_total=scheduler.prefix_hit_tokens_total,
        )

    def closed_batches(self) -> Seq[ClosedBatch]:
        """Explains the last steps."""
        return self._scheduler.history.read()

    def warm_up(self) -> None:
        """Generates a few tokens in a batch of a few sequences."""
        sampling = SamplingParams(max_tokens=2, seed=0, top_p=0.9)
        prompt_tokens = min(64, self._info.context_tokens - 2)
        work = Work(prompt_ids=(0,) * max(prompt_tokens, 1), sampling=sampling, max_tokens=2, min_tokens=0, end_ids=frozenset(), is_chat=False)
        self.add(WARM_UP, Job(prompt_tokens=prompt_tokens, max_output_tokens=8, choices=4, work=work), Lane.FLEX, time.monotonic())
        while self.has_work():
            for output in self.step(time.monotonic()):
                if output.error:
                    raise output.error

    def close(self) -> None:
        """Frees the device's memory; the engine is of no use afterwards."""
        self._learned.save()
        self._execution.close()

    def _queue(self, key: RequestKey, choices: Seq[Choice | Reading]) -> None:
        self._requests[key] = [choice.sequence for choice in choices]
        for choice in choices:
            self._choices[choice.sequence] = choice
            self._scheduler.add(choice.sequence)

    def _run(self, batch: Batch, failed: dict[Sequence, str]) -> list[_Ran]:
        """Computes and samples a batch. Where that raises, its halves are tried, down to the sequence at fault.

        Nothing has advanced before, and what was written to the cache is written again, so trying again is safe. Where memory
        is short, a prompt that is alone in its step is tried in smaller chunks before it is at fault.
        """
        try:
            return [self._compute(batch)]
        except torch.AcceleratorError:  # sticky: nothing runs on this device any more
            raise
        except Exception as error:  # noqa: BLE001 -- the one place where a request's fault is told from the engine's
            is_shortage = _is_shortage(error)
            self._is_short_of_memory |= is_shortage
            if batch.sequences == 1 and not (is_shortage and batch.tokens > 1):
                _blame(batch.decodes[0] if batch.decodes else batch.prefills[0].sequence, error, failed)
                return []
        # Out here, where the exception is gone and what it held is free.
        parts = batch.halves() if batch.sequences > 1 else (batch.shortened(),)
        return [ran for part in parts for ran in self._run(part, failed)]

    def _compute(self, batch: Batch) -> _Ran:
        computed = self._execution.run(batch.decodes, batch.prefills)
        scored, scores = [], []
        for part in computed.scored:
            scored += part.chunks
            scores += score(part.logits(), part.chunks, [self._choices[chunk.sequence].alternatives for chunk in part.chunks])
        return _Ran(batch, computed.samples, self._sampler.sample(computed.logits, computed.samples), scored, scores)

    def _advance(self, ran: _Ran, failed: dict[Sequence, str]) -> Iterator[StepOutput]:
        self._scheduler.advance(ran.batch)
        for chunk, scores in zip(ran.scored, ran.scores, strict=True):
            choice = self._choices[chunk.sequence]
            if isinstance(choice, Choice):
                choice.take_scores(scores)
            elif likelihood := choice.take(scores):
                if math.isnan(likelihood.logprob_sum):
                    failed[chunk.sequence] = _refuse_number(chunk.sequence)
                    continue
                self._end(chunk.sequence)
                yield StepOutput(key=chunk.sequence.key, likelihood=likelihood, finish_reason=FinishReason.STOP)
        token_ids, logprobs = ran.draws.token_ids, ran.draws.logprobs
        self._sampler.record(ran.samples, token_ids)
        for place, (sequence, token) in enumerate(zip(ran.samples, token_ids, strict=True)):
            if token == NOT_A_NUMBER:
                failed[sequence] = _refuse_number(sequence)
                continue
            choice = self._choices[sequence]
            assert isinstance(choice, Choice), "a text that is only read is never sampled"  # noqa: S101 -- our bug, not outside input
            try:
                output = choice.accept(token, logprobs.get(place))
            except Exception as error:  # noqa: BLE001 -- a tokenizer that fails on one output must not end the others
                _blame(sequence, error, failed)
                continue
            if output.finish_reason:
                self._end(sequence)
            yield output

    def _fail(self, sequence: Sequence, reason: str) -> StepOutput:
        """Ends the whole request of a sequence that failed; what it left in the cache must not reach whoever gets its blocks."""
        self._execution.wipe(self._scheduler.discard(self._requests[sequence.key]))
        self.cancel(sequence.key)
        return StepOutput(key=sequence.key, index=sequence.index, error=EngineError(f"the engine failed on this request: {reason}"))

    def _relieve(self) -> None:
        self._is_short_of_memory = False
        self._scheduler.relieve()
        torch.cuda.empty_cache()
        log.warning("short_of_memory", token_budget=self._scheduler.budget.tokens, sequences=self._scheduler.budget.sequences)

    def _end(self, sequence: Sequence) -> None:
        self._scheduler.finish(sequence)
        del self._choices[sequence]
        siblings = self._requests[sequence.key]
        siblings.remove(sequence)
        if not siblings:
            del self._requests[sequence.key]


def _is_shortage(error: Exception) -> bool:
    """Tells whether memory could not be had. On a processor torch has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def _refuse_number(sequence: Sequence) -> str:
    """Logs that what was computed is of no use, and says so."""
    log.error("the model computed no usable number for a sequence", key=sequence.key, index=sequence.index)
    return "its output is not a number"


def _blame(sequence: Sequence, error: Exception, failed: dict[Sequence, str]) -> None:
    """Notes and logs a sequence's fault. Not with its traceback: some renderers print the variables of each frame, prompts among them."""
    failed[sequence] = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    log.error(
        "a sequence failed in the engine",
        key=sequence.key,
        index=sequence.index,
        error=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}",
        at=" < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames)),
    )
