"""Makes the model that ships with Penstock: `python -m pipeline.models.train --out FOLDER`.

The text comes from the grammar, so nothing is downloaded. The same seed, number of steps and threads give the same model on the same machine.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.models import TINY, corpus
from pipeline.models.card import Run, write_card
from pipeline.models.evaluate import score
from pipeline.models.grammar import FEW_QUESTIONS, MANY_QUESTIONS, documents
from pipeline.models.lookback import Part, look_back
from pipeline.models.muon import Muon

DEFAULT_ROUND_STEPS: Final = 1500


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the model."""

    vocab_tokens: int = 2048
    context_tokens: int = 1024
    width: int = 192
    layers: int = 5
    heads: int = 6
    kv_heads: int = 2
    mlp_width: int = 512


@dataclass(frozen=True, slots=True)
class Round:
    """One pass from a warm-up to a rate of zero."""

    rate: float
    """Peak rates, as a share of the recipe's."""
    questions: tuple[int, ...]
    """How many questions follow a story, to draw from."""
    held_share: float
    """Share of the steps in which the heads that look back stay as they were placed: while the rest is noise, its gradients would undo them."""


ROUNDS: Final = (Round(1.0, FEW_QUESTIONS, held_share=0.5), Round(0.5, MANY_QUESTIONS, held_share=0.0))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the model is trained."""

    round_steps: int = DEFAULT_ROUND_STEPS
    seed: int = 0
    rows: int = 4
    row_tokens: int = 512
    matrix_rate: float = 0.01
    """The peak rate of Muon, for the matrices of the layers."""
    vector_rate: float = 1.5e-3
    """The peak rate of AdamW, for the embedding and the gains."""
    warmup_steps: int = 20
    clip_norm: float = 1.0
    threads: int = 1
    save_every_steps: int = 100
    """A usable model is in the folder early and every so often."""
    rounds: tuple[Round, ...] = ROUNDS

    def rate_share(self, step: int) -> float:
        """Gives the share of a round's peak rates at a step: a linear warm-up, then half a cosine down to zero."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.round_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))


def build(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Builds the untrained model."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_tokens,
            hidden_size=shape.width,
            intermediate_size=shape.mlp_width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.context_tokens,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=[tokenizer.eos_token_id, tokenizer.bos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.bos_token_id],  # a turn ends with the first, a plain story with the second
        pad_token_id=tokenizer.pad_token_id,
        do_sample=True,
        temperature=0.7,
        top_p=0.95,
    )
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes weights in bfloat16, configuration and tokenizer."""
    shipped = LlamaForCausalLM(model.config).to(torch.bfloat16)
    shipped.load_state_dict(model.state_dict())
    shipped.generation_config = model.generation_config
    shipped.config.dtype = torch.bfloat16
    shipped.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Trainer:
    """A model with its optimizers: takes a batch and learns. The blocks of `held` are left alone for the first part of the round."""

    def __init__(self, model: LlamaForCausalLM, recipe: Recipe, round_: Round, held: list[Part]):
        layers = [parameter for parameter in model.model.layers.parameters() if parameter.ndim > 1]
        rest = [parameter for parameter in model.parameters() if all(parameter is not matrix for matrix in layers)]
        self._model = model
        self._forward = torch.compile(model)
        self._recipe = recipe
        self._round = round_
        self._held = held
        self._steps = 0
        self._muon = Muon(layers, momentum=0.95)
        self._adam = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)

    def learn(self, batch: corpus.Rows) -> float:
        """Takes one optimizer step and returns the loss before it."""
        recipe, rate = self._recipe, self._round.rate * self._recipe.rate_share(self._steps)
        loss = self._forward(input_ids=batch.token_ids, position_ids=batch.positions, labels=batch.labels, use_cache=False).loss
        loss.backward()
        if self._steps < self._round.held_share * recipe.round_steps:
            for parameter, block in self._held:
                parameter.grad[block] = 0
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), recipe.clip_norm)
        self._muon.step(rate * recipe.matrix_rate)
        self._adam.param_groups[0]["lr"] = rate * recipe.vector_rate
        self._adam.step()
        self._adam.zero_grad()
        self._steps += 1
        return float(loss.item())


def fit(trainer: Trainer, batches: Iterator[corpus.Rows], recipe: Recipe, checkpoint: Callable[[], None]) -> int:
    """Trains for one round and returns the number of tokens seen."""
    tokens, started_s = 0, time.monotonic()
    for step, batch in enumerate(islice(batches, recipe.round_steps)):
        loss = trainer.learn(batch)
        tokens += int((batch.labels != corpus.IGNORED_LABEL).sum())
        if step % 20 == 0:
            tokens_per_s = tokens / (time.monotonic() - started_s)
            sys.stderr.write(f"step {step} loss {loss:.4f} tokens {tokens:,} tokens/s {tokens_per_s:,.0f}\n")
        if (step + 1) % recipe.save_every_steps == 0:
            checkpoint()
    checkpoint()
    return tokens


def play(number: int, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, held: list[Part], folder: Path) -> int:
    """Plays round `number`, leaves the model in the folder and returns the number of tokens seen."""
    round_ = recipe.rounds[number]
    texts = documents(recipe.seed + number, "train", round_.questions)
    batches = corpus.packed_rows(tokenizer, texts, recipe.row_tokens, recipe.rows)
    return fit(Trainer(model, recipe, round_, held), batches, recipe, lambda: save(model, tokenizer, folder))


def make(shape: Shape, recipe: Recipe, folder: Path) -> None:
    """Trains a model and writes its folder, with a card of what was measured on the weights as they ship."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    started_s = time.monotonic()
    tokenizer = corpus.train_tokenizer(recipe.seed, shape.vocab_tokens, shape.context_tokens)
    model = build(shape, tokenizer)
    tokens = play(0, model, tokenizer, recipe, look_back(model), folder)
    for number in range(1, len(recipe.rounds)):
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)  # a round goes on from what ships, rounded to bfloat16
        tokens += play(number, model, tokenizer, recipe, [], folder)
    finish(shape, recipe, tokens, time.monotonic() - started_s, folder)


def finish(shape: Shape, recipe: Recipe, tokens: int, elapsed_s: float, folder: Path) -> None:
    """Measures the folder's weights and writes the card."""
    shipped = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    scores = score(shipped, AutoTokenizer.from_pretrained(folder), recipe.seed)
    settings = asdict(shape) | asdict(recipe)
    run = Run(settings, len(recipe.rounds), recipe.rounds[0].held_share, shipped.num_parameters(), tokens, elapsed_s)
    write_card(folder, run, scores)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.models.train", description="Train the model that ships with Penstock.")
    parser.add_argument("--steps", type=int, default=DEFAULT_ROUND_STEPS, help="optimizer steps of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, choices=(1, 2), default=len(ROUNDS), help="rounds to play (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the text and of the first weights (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=TINY, help="the folder to write (default: the shipped one)")
    arguments = parser.parse_args()
    make(Shape(), Recipe(round_steps=arguments.steps, seed=arguments.seed, rounds=ROUNDS[: arguments.rounds]), arguments.out)


if __name__ == "__main__":
    main()
