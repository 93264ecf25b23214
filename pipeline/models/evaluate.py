"""What the model card reports: the loss on held-out stories, and whether greedy answers do what was asked."""

import math
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.models.corpus import IGNORED_LABEL, packed_rows
from pipeline.models.grammar import stories, story_requests

_LOSS_BATCHES = 16
_ROWS = 16
_ROW_TOKENS = 512
_REQUESTS = 256
_ANSWER_TOKENS = 320


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures measured on stories about pairs of hero and thing that training never showed."""

    loss: float
    """Mean cross-entropy per token, in nats."""
    scored_tokens: int
    following: float
    """Share of greedy answers that mention the hero and the thing of the request."""
    finished: float
    """Share of greedy answers that came to their end within the limit."""
    requests: int

    @property
    def perplexity(self) -> float:
        """Gives the perplexity per token."""
        return math.exp(self.loss)


def score(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> Scores:
    """Scores the model on held-out stories."""
    model.eval()
    with torch.inference_mode():
        loss, tokens = _loss(model, tokenizer, seed)
    following, finished = _following(model, tokenizer, seed)
    return Scores(loss, tokens, following, finished, _REQUESTS)


def _loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> tuple[float, int]:
    total, tokens = 0.0, 0
    for batch in islice(packed_rows(tokenizer, stories(seed, "held_out"), _ROW_TOKENS, _ROWS), _LOSS_BATCHES):
        count = int((batch.labels != IGNORED_LABEL).sum())
        total += count * float(model(input_ids=batch.token_ids, position_ids=batch.positions, labels=batch.labels, use_cache=False).loss)
        tokens += count
    return total / tokens, tokens


def _following(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> tuple[float, float]:
    asked = list(islice(story_requests(seed, "held_out"), _REQUESTS))
    followed = finished = 0
    for start in range(0, _REQUESTS, _ROWS):
        group = asked[start : start + _ROWS]
        for (request, cast), (answer, ended) in zip(group, answers(model, tokenizer, [ask(request) for request, _ in group]), strict=True):
            wanted = [cast.noun, *(word for word in (cast.hero.kind, cast.hero.name) if word in request)]
            followed += all(word.lower() in answer.lower() for word in wanted)
            finished += ended
    return followed / _REQUESTS, finished / _REQUESTS


Messages = list[dict[str, str]]


def ask(request: str) -> Messages:
    """Makes a chat of one message."""
    return [{"role": "user", "content": request}]


def answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, chats: list[Messages]) -> list[tuple[str, bool]]:
    """Answers each chat greedily: the text, and whether it came to its end."""
    prompts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    output = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=_ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    new = output[:, batch["input_ids"].shape[1] :]
    return [(tokenizer.decode(row, skip_special_tokens=True), tokenizer.eos_token_id in row.tolist()) for row in new]
