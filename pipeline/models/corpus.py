"""From documents to rows of token ids: the chat template, the tokenizer and the packing."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.models.grammar import Chat, Document, documents

END_OF_TEXT: Final = "<|endoftext|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"

CHAT_TEMPLATE: Final = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

IGNORED_LABEL: Final = -100
_TOKENIZER_DOCUMENTS: Final = 30_000
_OPEN_ROWS: Final = 64
"""Rows that are filled at the same time: more waste less padding."""


def render(document: Document) -> str:
    """Writes a document as the model sees it, control tokens included."""
    if isinstance(document, Chat):
        return "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in document.messages)
    return (END_OF_TEXT if document.after_border else "") + document.text + END_OF_TEXT


def train_tokenizer(seed: int, vocab_tokens: int, context_tokens: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer on training documents."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = [END_OF_TEXT, TURN_START, TURN_END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_tokens, special_tokens=specials, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    texts = (render(document) for document in islice(documents(seed, "train"), _TOKENIZER_DOCUMENTS))
    core.train_from_iterator((text.replace(TURN_START, "").replace(TURN_END, "").replace(END_OF_TEXT, "") for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=END_OF_TEXT,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START],
        model_max_length=context_tokens,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch of packed rows, each int64 of shape [rows, row_tokens].

    Positions start again at 0 with every document: the model class reads them as document borders and lets no document see another.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor


def packed_rows(tokenizer: PreTrainedTokenizerFast, texts: Iterator[Document], row_tokens: int, rows: int) -> Iterator[Rows]:
    """Packs whole documents into rows; the tail of a row is padding without a label. Documents longer than a row are left out."""
    filled: list[list[list[int]]] = []
    for row in _fill(_encoded(tokenizer, texts, row_tokens), row_tokens):
        filled.append(row)
        if len(filled) == rows:
            yield _stack(filled, row_tokens, pad_id=int(tokenizer.convert_tokens_to_ids(END_OF_TEXT)))
            filled = []


def _encoded(tokenizer: PreTrainedTokenizerFast, texts: Iterator[Document], row_tokens: int) -> Iterator[list[int]]:
    for document in texts:
        token_ids: list[int] = tokenizer.encode(render(document), add_special_tokens=False)
        if len(token_ids) <= row_tokens:
            yield token_ids


def _fill(encoded: Iterator[list[int]], row_tokens: int) -> Iterator[list[list[int]]]:
    """Puts each document into the open row where it leaves the least room; the fullest row goes when none fits."""
    open_rows: list[list[list[int]]] = [[] for _ in range(_OPEN_ROWS)]
    free_tokens = [row_tokens] * _OPEN_ROWS
    for token_ids in encoded:
        fits = [index for index, free in enumerate(free_tokens) if free >= len(token_ids)]
        if not fits:
            fits = [min(range(_OPEN_ROWS), key=free_tokens.__getitem__)]
            yield open_rows[fits[0]]
            open_rows[fits[0]], free_tokens[fits[0]] = [], row_tokens
        best = min(fits, key=free_tokens.__getitem__)
        open_rows[best].append(token_ids)
        free_tokens[best] -= len(token_ids)


def _stack(filled: list[list[list[int]]], row_tokens: int, pad_id: int) -> Rows:
    shape = (len(filled), row_tokens)
    token_ids, labels = torch.full(shape, pad_id), torch.full(shape, IGNORED_LABEL)
    positions = torch.zeros(shape, dtype=torch.int64)
    for index, row in enumerate(filled):
        start = 0
        for document in row:
            end = start + len(document)
            token_ids[index, start:end] = labels[index, start:end] = torch.tensor(document)
            labels[index, start] = IGNORED_LABEL  # nothing of its own document comes before the first token
            positions[index, start:end] = torch.arange(len(document))
            start = end
        positions[index, start:] = torch.arange(row_tokens - start)
    return Rows(token_ids, positions, labels)
