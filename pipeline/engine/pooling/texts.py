"""From the texts of a request to ids: tokenised all together, cut where the request says so, refused where they are too long."""

from collections.abc import Sequence
from typing import Any

from pipeline.engine.pooling.work import Text
from schemas.errors import InvalidRequest, InvalidToken, PromptTooLong


class Texts:
    """The texts that one model takes.

    Args:
        tokenizer: transformers' tokenizer; None where the model has none, and then only ids are taken.
        vocabulary: Ids lie below it.
        context_tokens: Longest text.
        prompt: What is put before every single text.
    """

    def __init__(self, tokenizer: Any, *, vocabulary: int, context_tokens: int, prompt: str = ""):
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self.context_tokens = context_tokens
        self._prompt = prompt

    def limit_tokens(self, truncate_prompt_tokens: int | None) -> int | None:
        """Tokens that texts are cut to; None: they are not.

        Raises:
            InvalidRequest: More is asked for than the model takes.
        """
        if truncate_prompt_tokens is None:
            return None
        if truncate_prompt_tokens > self.context_tokens:
            raise InvalidRequest(f"the model takes {self.context_tokens} tokens: truncate to that or less", param="truncate_prompt_tokens")
        return self.context_tokens if truncate_prompt_tokens == -1 else truncate_prompt_tokens

    def singles(self, inputs: Sequence[str | tuple[int, ...]], limit_tokens: int | None, *, param: str) -> tuple[Text, ...]:
        """Takes texts and lists of ids, in any order.

        Raises:
            InvalidRequest: Or one of its classes; `param` names the one at fault.
        """
        names = [param if len(inputs) == 1 else f"{param}.{number}" for number in range(len(inputs))]
        strings = [number for number, entry in enumerate(inputs) if isinstance(entry, str)]
        texts: dict[int, Text] = {}
        if strings:
            encoded = self._encode([self._prompt + str(inputs[number]) for number in strings], None, limit_tokens, [names[n] for n in strings])
            texts.update(zip(strings, encoded, strict=True))
        for number, entry in enumerate(inputs):
            if not isinstance(entry, str):
                texts[number] = self._from_ids(entry, limit_tokens, names[number])
        return tuple(texts[number] for number in range(len(inputs)))

    def pairs(self, pairs: Sequence[tuple[str, str]], limit_tokens: int | None, *, param: str) -> tuple[Text, ...]:
        """Takes pairs of texts; `param` names where the second ones came from.

        Raises:
            InvalidRequest: Or one of its classes.
        """
        names = [param if len(pairs) == 1 else f"{param}.{number}" for number in range(len(pairs))]
        return tuple(self._encode([first for first, _ in pairs], [second for _, second in pairs], limit_tokens, names))

    def _from_ids(self, token_ids: tuple[int, ...], limit_tokens: int | None, name: str) -> Text:
        if max(token_ids) >= self._vocabulary:
            raise InvalidToken(f"a token id lies outside the vocabulary: ids go from 0 to {self._vocabulary - 1}", param=name)
        return self._checked(Text(token_ids if limit_tokens is None else token_ids[:limit_tokens]), name)

    def _encode(self, firsts: list[str], seconds: list[str] | None, limit_tokens: int | None, names: list[str]) -> list[Text]:
        if self._tokenizer is None:
            raise InvalidRequest("the model has no tokenizer: send token ids", param=names[0])
        texts = self._tokenize(firsts, seconds)
        long = [number for number, text in enumerate(texts) if limit_tokens is not None and len(text) > limit_tokens]
        if long:
            cut = self._cut([firsts[n] for n in long], seconds and [seconds[n] for n in long], limit_tokens)
            for number, text in zip(long, cut, strict=True):
                texts[number] = text
        return [self._checked(text, name) for text, name in zip(texts, names, strict=True)]

    def _cut(self, firsts: list[str], seconds: list[str] | None, limit_tokens: int | None) -> list[Text]:
        """Cuts on the right, of a pair the longer text, and keeps the control tokens."""
        control_tokens = self._tokenizer.num_special_tokens_to_add(pair=seconds is not None)
        if limit_tokens is None or limit_tokens <= control_tokens + (seconds is not None):
            raise InvalidRequest(f"leaves no room for text: the model's control tokens take {control_tokens}", param="truncate_prompt_tokens")
        return self._tokenize(firsts, seconds, truncation="longest_first", max_length=limit_tokens)

    def _tokenize(self, firsts: list[str], seconds: list[str] | None, **options: Any) -> list[Text]:
        encoded = self._tokenizer(firsts, seconds, return_attention_mask=False, **({"truncation": False} | options))
        types = encoded.get("token_type_ids") if seconds else None
        ids = encoded["input_ids"]
        return [Text(tuple(row), tuple(types[number]) if types else ()) for number, row in enumerate(ids)]

    def _checked(self, text: Text, name: str) -> Text:
        if not len(text):
            raise InvalidRequest("the text has no tokens", param=name)
        if len(text) > self.context_tokens:
            raise PromptTooLong(len(text), self.context_tokens, param=name)
        if max(text.token_ids) >= self._vocabulary:
            raise InvalidToken("the tokenizer makes an id of this text that the model does not know", param=name)
        return text
