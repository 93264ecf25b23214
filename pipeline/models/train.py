"""Makes the model that ships with Penstock: `python -m pipeline.models.train --out FOLDER`.

The text comes from the grammar, so nothing is downloaded. The same seed, number of steps and threads give the same model on the same machine.
"""

import argparse
import math
import sys
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.models import TINY, corpus
from pipeline.models.card import Run, write_card
from pipeline.models.evaluate import score
from pipeline.models.grammar import documents
from pipeline.models.muon import Muon

DEFAULT_STEPS: Final = 1800


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
class Recipe:
    """How the model is trained."""

    steps: int = DEFAULT_STEPS
    seed: int = 0
    rows: int = 6
    row_tokens: int = 512
    matrix_rate: float = 0.02
    """The peak rate of Muon, for the matrices of the layers."""
    vector_rate: float = 3e-3
    """The peak rate of AdamW, for the embedding and the gains."""
    warmup_steps: int = 40
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    threads: int = 2
    save_every_steps: int = 300
    """A usable model is in the folder early and every so often."""

    def rate_share(self, step: int) -> float:
        """Gives the share of the peak rates at a step: a linear warm-up, then half a cosine down to zero."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
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


def fit(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, folder: Path) -> int:
    """Trains the model in place and returns the number of tokens seen."""
    layers = [parameter for parameter in model.model.layers.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if all(parameter is not matrix for matrix in layers)]
    muon = Muon(layers, momentum=0.95, weight_decay=recipe.weight_decay)
    adam = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    forward = torch.compile(model)
    batches = corpus.packed_rows(tokenizer, documents(recipe.seed, "train"), recipe.row_tokens, recipe.rows)
    tokens, started_s = 0, time.monotonic()
    model.train()
    for step, batch in enumerate(islice(batches, recipe.steps)):
        loss = forward(input_ids=batch.token_ids, position_ids=batch.positions, labels=batch.labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        share = recipe.rate_share(step)
        muon.step(share * recipe.matrix_rate)
        adam.param_groups[0]["lr"] = share * recipe.vector_rate
        adam.step()
        adam.zero_grad()
        tokens += int((batch.labels != corpus.IGNORED_LABEL).sum())
        if step % 20 == 0:
            rate = tokens / (time.monotonic() - started_s)
            sys.stderr.write(f"step {step} loss {loss.item():.4f} tokens {tokens:,} tokens/s {rate:,.0f}\n")
        if (step + 1) % recipe.save_every_steps == 0:
            save(model, tokenizer, folder)
    return tokens


def make(shape: Shape, recipe: Recipe, folder: Path) -> None:
    """Trains a model and writes its folder, with a card of what was measured on the weights as they ship."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    started_s = time.monotonic()
    tokenizer = corpus.train_tokenizer(recipe.seed, shape.vocab_tokens, shape.context_tokens)
    model = build(shape, tokenizer)
    tokens = fit(model, tokenizer, recipe, folder)
    save(model, tokenizer, folder)
    run = Run(asdict(shape) | asdict(recipe), model.num_parameters(), tokens, time.monotonic() - started_s)
    shipped = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    write_card(folder, run, score(shipped, AutoTokenizer.from_pretrained(folder), recipe.seed))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.models.train", description="Train the model that ships with Penstock.")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the text and of the first weights (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=TINY, help="the folder to write (default: the shipped one)")
    arguments = parser.parse_args()
    make(Shape(), Recipe(steps=arguments.steps, seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
