"""What the model card reports: the loss on held-out stories, and whether greedy answers do what was asked."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from pipeline.models.corpus import IGNORED_LABEL, packed_rows
from pipeline.models.grammar import stories, story_requests
from pipeline.models.grammar.cast import Cast, slots_of
from pipeline.models.grammar.plots import PLOTS
from pipeline.models.grammar.stories import Telling, tell
from pipeline.models.grammar.words import article

_LOSS_BATCHES = 16
_ROWS = 16
_ROW_TOKENS = 512
_REQUESTS = 256
_WISHES = 96
_ANSWER_TOKENS = 320

Judge = Callable[[str, Cast], bool]
"""Tells something of a request or an answer that belongs to a cast."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures measured on stories about pairs of hero and thing that training never showed."""

    loss: float
    """Mean cross-entropy per token, in nats."""
    scored_tokens: int
    requests: int
    following: float
    """Share of greedy answers that mention the hero and the thing of the request."""
    finished: float
    """Share of greedy answers that came to their end within the limit."""
    wishes: int
    """Requests or questions that each of the next figures was measured on."""
    place_kept: float
    """Share of answers that play where the request wants it."""
    sad_kept: float
    """Share of answers to requests for a sad story that end sadly."""
    moral_kept: float
    """Share of answers that add the moral that was asked for."""
    name_known: float
    """Share of right answers, after a story of the grammar, to the question for the hero's name."""
    friend_known: float
    """The same for the friend."""
    place_known: float
    """The same for the place."""

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
    return Scores(
        loss=loss,
        scored_tokens=tokens,
        requests=_REQUESTS,
        following=following,
        finished=finished,
        wishes=_WISHES,
        place_kept=_kept(model, tokenizer, seed, wished=lambda request, cast: cast.place in request, kept=lambda answer, cast: cast.place in answer),
        sad_kept=_kept(model, tokenizer, seed, wished=lambda request, _: " sad " in request, kept=lambda answer, _: ends_sadly(answer)),
        moral_kept=_kept(model, tokenizer, seed, wished=lambda request, _: "moral" in request, kept=lambda answer, _: "The moral:" in answer),
        name_known=_known(model, tokenizer, seed, "What was the name of the {kind}?", "{name}"),
        friend_known=_known(model, tokenizer, seed, "Who was the friend?", "{friend}"),
        place_known=_known(model, tokenizer, seed, "Where did it happen?", "{place}"),
    )


def _kept(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, wished: Judge, kept: Judge) -> float:
    asked = list(islice((pair for pair in story_requests(seed, "held_out") if wished(*pair)), _WISHES))
    told = answers(model, tokenizer, [ask(request) for request, _ in asked])
    return sum(kept(answer, cast) for (answer, _), (_, cast) in zip(told, asked, strict=True)) / _WISHES


def _known(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, question: str, fact: str) -> float:
    rng = Random(f"facts {seed}")  # noqa: S311 (text, no secret)
    casts = [cast for _, cast in islice(story_requests(seed, "held_out"), _WISHES)]
    slots = [slots_of(cast) for cast in casts]
    chats = [
        [*ask(f"Tell me a short story about {article(cast.hero.kind)}."), {"role": "assistant", "content": tell(rng, cast, Telling("short"))}]
        for cast in casts
    ]
    told = answers(model, tokenizer, [[*chat, *ask(question.format_map(words))] for chat, words in zip(chats, slots, strict=True)])
    return sum(fact.format_map(words) in answer for (answer, _), words in zip(told, slots, strict=True)) / _WISHES


def ends_sadly(story: str) -> bool:
    """Tells whether a story has the last sentence of a sad ending."""
    return any(re.search(pattern, story) for pattern in _SAD_LASTS)


def _pattern(sentence: str) -> str:
    return re.sub(r"\\{\w+\\}", r"[\\w ]+", re.escape(sentence))


_SAD_LASTS = tuple(_pattern(way) for plot in PLOTS for way in plot.sad_end[-1].ways)


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
