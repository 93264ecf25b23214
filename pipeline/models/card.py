"""Writes the model card: what the model is, how it was made, and what was measured."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from pipeline.models.evaluate import Scores
from pipeline.models.grammar import HELD_OUT_PART

_CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
library_name: transformers
---

# Tiny

A language model of {parameters_m:.2f} million parameters that ships with Penstock, so that a fresh checkout answers chats without a download.
It tells short children's stories about a hero and a thing that you name, answers simple questions about the story that it told, and does a little
small talk.

| | |
|---|---|
| architecture | Llama: {layers} layers, {width} wide, {heads} heads over {kv_heads} KV heads, tied embeddings |
| context | {context_tokens} tokens; training rows had {row_tokens} |
| vocabulary | byte-level BPE, {vocab_tokens} tokens |
| weights | bfloat16 safetensors, {weights_mb:.1f} MB |
| licence | Apache-2.0, weights and text alike |

## Data

All text comes from a seeded grammar in this repository (`pipeline/models/grammar/`): seven plots with two endings each, told in varied sentences, the
requests for them, questions with answers that follow from the story, and small talk. Nothing was downloaded, and no text of other authors is in it.
One in {held_out_part} of all pairs of hero and thing (by a hash of the two words) is in no training document.

## Training

    python -m pipeline.models.train --rounds {round_count} --steps {round_steps} --seed {seed}

{round_count} of the recipe's two rounds, of {round_steps} steps of {rows} packed rows each: {tokens_m:.2f} million tokens in all, with Muon and
AdamW in float32, a warm-up and a cosine. (The second round asks more questions after each story.) It took {minutes:.0f} minutes on {threads} thread
of a shared CPU (torch {torch_version}). It needs a C++ compiler (`torch.compile`).

The first weights are noise except for two pairs of heads that look back (`lookback.py`): with them the model copies names and things from its request
from the start, which a run from plain noise had not learned after a million tokens. They are held in place for the first {held_percent:.0f} % of the
first round.

## Measured on pairs of hero and thing that training never showed

| | |
|---|---|
| loss per token | {loss:.4f} nats ({scored_tokens:,} tokens; requests, stories and follow-up turns) |
| perplexity per token | {perplexity:.3f} |
| greedy answers that mention the hero and the thing asked for | {following:.1%} of {requests} |
| that end by themselves within the limit | {finished:.1%} of {requests} |
| that play in the place that the request names | {place_kept:.0%} of {wishes} |
| that end sadly where a sad story was asked for | {sad_kept:.0%} of {wishes} |
| that add the moral that was asked for | {moral_kept:.0%} of {wishes} |
| right answers, after a story, to the question for the hero's name | {name_known:.0%} of {wishes} |
| for the friend | {friend_known:.0%} of {wishes} |
| for the place | {place_known:.0%} of {wishes} |

The measured weights are the shipped ones. A grammar can be learned almost fully: what is left of the loss is mostly the grammar's own chance.

## Limits

It knows the world of its grammar and nothing else: ask it for anything but stories and small talk, and it makes something up or says that it does not
know. How often it keeps to what a request names beyond hero and thing, and to its own story when asked about it, is measured above; other wishes are
ignored. A name in lower case, and a question for who helped or for a colour, often get an answer that does not fit. Heroes and things outside its
word list turn into others. Beyond {row_tokens} tokens it was not trained. English only. It is meant for trying
out, testing and measuring Penstock, not for answering people.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What a training run knows about itself."""

    settings: dict[str, int | float]
    """Shape and recipe, by name."""
    rounds: int
    held_share: float
    parameters: int
    tokens: int
    elapsed_s: float


def write_card(folder: Path, run: Run, scores: Scores) -> None:
    """Writes `README.md` beside the weights."""
    text = _CARD.format_map(
        run.settings
        | asdict(scores)
        | {
            "parameters_m": run.parameters / 1e6,
            "tokens_m": run.tokens / 1e6,
            "minutes": run.elapsed_s / 60,
            "weights_mb": (folder / "model.safetensors").stat().st_size / 1e6,
            "torch_version": torch.__version__.partition("+")[0],
            "held_percent": 100 * run.held_share,
            "round_count": run.rounds,
            "held_out_part": HELD_OUT_PART,
            "perplexity": scores.perplexity,
        }
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
