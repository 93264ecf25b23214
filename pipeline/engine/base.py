"""The seam between the worker and whatever computes: one `Engine` per served model.

An engine belongs to the thread that steps it. It validates before it computes: `prepare` raises the error tree and
touches no state, so that one bad request never reaches a batch. It never blocks for longer than one step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.scheduling.explanation import Closed, ClosedBatch
from pipeline.scheduling.sequence import Lane
from schemas.errors import PenstockError
from schemas.events import FinishReason, Usage
from schemas.request import Request

if TYPE_CHECKING:  # it brings numpy along, which engines without tensors do not need
    from schemas.pooled_results import Pooled

RequestKey = int
"""The worker's own number for a request, unique within the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request made ready for one engine: validated, tokenised, its defaults filled in.

    `work` is the engine's own affair. `prompt_tokens` counts the prompt, `max_output_tokens` bounds the output of all
    choices together; both serve admission and usage. `tenant` is set by the worker: what an engine keeps of one tenant's
    prompts, no other's request may profit by. `deadline_s`, likewise, is the monotonic time after which nobody wants the answer.
    """

    prompt_tokens: int
    max_output_tokens: int
    choices: int
    work: Any
    tenant: str = ""
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What a model thinks of a text.

    Attributes:
        logprob_sum: Natural logarithm of the probability of all tokens but the first, each given those before it.
        token_count: How many tokens that are; the first one, which nothing comes before, does not count.
    """

    logprob_sum: float
    token_count: int

    @property
    def perplexity(self) -> float:
        """The inverse of the tokens' geometric mean probability; infinite where the text is as good as impossible."""
        try:
            return math.exp(-self.logprob_sum / self.token_count)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What one step did for one choice of one request.

    `text` is what may be shown now: it lacks what is held back as the possible start of a stop string or half a
    character. `token_ids` are new in this step, an end-of-sequence token included. A choice is over when `finish_reason`
    is set; the request is over when all its choices are, or at once when `error` is set, which ends every choice.
    `logprobs` is OpenAI's object for these tokens, where asked for. A model that writes no text gives one output per request,
    whose `pooled` is all of its answer; a text that is only read gives one with its `likelihood`. `usage` comes with a request's
    last output, where the engine counts better than the worker can: a remote one may show text alone, without token ids.
    """

    key: RequestKey
    index: int = 0
    token_ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: dict[str, Any] | None = None
    pooled: "Pooled | None" = None
    likelihood: Likelihood | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: PenstockError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A moment's reading, for metrics, admission and the curious.

    `batch_closed` tells why the last step's batch closed, where the engine plans batches. `step_error_p95` is by how much the
    predicted time of a step is wrong, relative to the measured one, in 95 of 100 steps of late; None until enough were seen.
    `waits_until_s` is until when a step is better put off for others to join it, unless they come; 0 for not at all.
    """

    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    batch_sequences: int = 0
    batch_tokens: int = 0
    batch_closed: Closed | None = None
    step_error_p95: float | None = None
    preemptions_total: int = 0
    deferrals_total: int = 0
    prefix_query_tokens_total: int = 0
    prefix_hit_tokens_total: int = 0
    waits_until_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a served model is."""

    name: str
    source: str
    revision: str | None
    architecture: str
    parameters: int
    dtype: str
    device: str
    context_tokens: int
    vocabulary: int


class Engine(Protocol):
    """One model, continuously batched."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        ...

    def warm_up(self) -> None:
        """Runs the model once in the shapes to come, so that the first request does not pay for it."""
        ...

    def prepare(self, request: Request) -> Job:
        """Validates a request against this model and tokenises it.

        Raises:
            InvalidRequest: One of the tree's classes, naming the field; the engine's state is untouched.
        """
        ...

    def prepare_likelihood(self, text: str | Sequence[int]) -> Job:
        """Makes a job of a text (or its token ids) that is to be read, not continued: its one output is a `likelihood`.

        Raises:
            InvalidRequest: One of the tree's classes: the model can't tell, or not of this text.
        """
        ...

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        """Queues a job. `now_s` is the monotonic clock, as everywhere."""
        ...

    def cancel(self, key: RequestKey) -> None:
        """Drops a request, queued or running, before the next step; no output of it follows. Unknown keys are ignored."""
        ...

    def has_work(self) -> bool:
        """Tells whether a step would do anything."""
        ...

    def step(self, now_s: float) -> Sequence[StepOutput]:
        """Runs one batch and returns what came of it.

        A fault of one sequence becomes an output with an `error` for its request alone. Only a fault that makes the
        engine unusable (a broken device) is raised.
        """
        ...

    def stats(self) -> EngineStats:
        """Reads the gauges."""
        ...

    def closed_batches(self) -> Sequence[ClosedBatch]:
        """Explains the last steps, oldest first; nothing where the engine plans no batches. Any thread may ask."""
        ...

    def close(self) -> None:
        """Frees the device's memory."""
        ...
