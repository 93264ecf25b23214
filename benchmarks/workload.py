"""Seeded requests of mixed lengths, as Batch lines: the same for every contender of a run."""

import random
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Workload:
    """`count` completions with prompts and outputs of lengths drawn evenly from the two ranges, greedy, to the last token."""

    count: int = 64
    prompt_tokens: tuple[int, int] = (16, 256)
    output_tokens: tuple[int, int] = (16, 256)
    vocabulary: int = 1_000
    seed: int = 0

    def lines(self, model: str, prefix: str) -> list[dict[str, Any]]:
        """The requests; `prefix` tells the rounds of a run apart."""
        draw = random.Random(self.seed)  # noqa: S311 -- a workload, not a secret
        return [
            {
                "custom_id": f"{prefix}-{index}",
                "method": "POST",
                "url": "/v1/completions",
                "body": {
                    "model": model,
                    "prompt": [draw.randrange(10, self.vocabulary) for _ in range(draw.randint(*self.prompt_tokens))],
                    "max_tokens": draw.randint(*self.output_tokens),
                    "temperature": 0,
                    "ignore_eos": True,
                    "stream": True,
                },
            }
            for index in range(self.count)
        ]
