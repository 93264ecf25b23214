"""A machine whose steps take a known time, for schedulers to run on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from pipeline.scheduling.adaptive import Adaptive
from pipeline.scheduling.batch import Batch
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Lane, Sequence
from pipeline.scheduling.step_model import Load, StepModel, Terms

SECONDS = Terms(step=0.006, prefill_tokens=3e-4, decodes=3.5e-4, kv_tokens=1e-6, prefill_context=3e-7, chunks=5e-4)
"""What each term of the step model costs on it: about a model of 15 M parameters on two cores."""


def step_s(load: Load, seconds: Terms = SECONDS) -> float:
    """How long a step takes."""
    return sum(each * term for each, term in zip(seconds, load.terms(), strict=True))


def learned(seconds: Terms = SECONDS, steps: int = 60) -> StepModel:
    """A model that has seen the machine at work."""
    draw, model = Random(0), StepModel()
    for _ in range(steps):
        load = Load()
        load.decodes, load.kv_tokens = (n := draw.randrange(64)), n * draw.randrange(16, 256)
        for _ in range(draw.randrange(3)):
            load.add_chunk(draw.randrange(128), 1 + draw.randrange(128))
        model.observe(load, step_s(load, seconds))
    return model


KNOWN = learned().to_json()


def adaptive(targets: Targets = Targets(), **options: object) -> Scheduler:  # noqa: B008 -- frozen
    """A scheduler under the policy that serves, which knows the machine."""
    weights, patience_s = options.pop("weights", {}), options.pop("patience_s", 10.0)
    sizes = {"max_sequences": 16, "token_budget": 256, **options}
    blocks, model = sizes.pop("blocks", 2_048), sizes.pop("model", None) or StepModel.from_json(KNOWN)
    return Scheduler(BlockPool(blocks, 16), **sizes, policy=Adaptive(model, targets, weights=weights, patience_s=patience_s))


@dataclass
class Machine:
    """Runs a scheduler's batches against a clock of its own."""

    scheduler: Scheduler
    wanted: dict[int, int] = field(default_factory=dict)
    now_s: float = 0.0
    slowness: float = 1.0
    seconds: Terms = SECONDS
    served_tokens: dict[str, int] = field(default_factory=dict)
    first_s: dict[int, float] = field(default_factory=dict)
    ended_s: dict[int, float] = field(default_factory=dict)
    tokens: int = 0
    _keys: int = 0

    def send(self, prompt: int, output: int, lane: Lane = Lane.DEFAULT, tenant: str = "", arrived_s: float | None = None) -> Sequence:
        """Queues a request."""
        self._keys += 1
        self.wanted[self._keys] = output
        arrived_s = self.now_s if arrived_s is None else arrived_s
        sequence = Sequence(
            key=self._keys, prompt_ids=(self._keys,) * prompt, lane=lane, tenant=tenant, arrived_s=arrived_s, max_output_tokens=output
        )
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> Batch:
        """Plans and computes one step."""
        batch = self.scheduler.plan(self.now_s)
        sampled = batch.decodes + [chunk.sequence for chunk in batch.prefills if chunk.samples]
        measured_s = step_s(Load.of(batch), self.seconds) * self.slowness
        for sequence, tokens in [(s, 1) for s in batch.decodes] + [(c.sequence, c.count) for c in batch.prefills]:
            self.served_tokens[sequence.tenant] = self.served_tokens.get(sequence.tenant, 0) + tokens
        self.tokens += batch.tokens
        self.scheduler.advance(batch)
        for sequence in sampled:
            sequence.output_ids.append(1)
            self.first_s.setdefault(sequence.key, self.now_s + measured_s)
            if len(sequence.output_ids) == self.wanted[sequence.key]:
                self.scheduler.finish(sequence)
                self.ended_s[sequence.key] = self.now_s + measured_s
        self.scheduler.close(batch, measured_s)
        self.now_s += measured_s
        return batch

    def run(self, until_s: float, before_step: Callable[[], None] = lambda: None) -> None:
        """Steps until the clock shows so much; before each, more may arrive."""
        while self.now_s < until_s:
            before_step()
            if not self.scheduler.has_work():
                self.now_s += 0.001
                continue
            self.step()
