"""From messages or text to prompt ids. What a user writes never becomes a control token of the chat template."""

import re
import secrets
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from pipeline.engine.vocabulary import Vocabulary
from schemas.errors import InvalidRequest
from schemas.request import Message


class Prompts:
    """Renders and tokenises prompts for one tokenizer.

    A control token that a user spells out in a message is cut in two before the template runs, with a mark that nobody can
    guess; the rendered text is split at the marks and its pieces are tokenised apart, so that only what the template itself
    wrote can become a control token. Messages without one are tokenised in one piece, just as transformers does it.
    """

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._tokenizer = tokenizer = vocabulary.tokenizer
        self._template: str | None = _chat_template(tokenizer)
        self._mark = secrets.token_hex(16)
        added = tokenizer.added_tokens_decoder.values()
        control = [t for t in added if t.special or (t.content in (self._template or "") and not t.content.isspace())]
        self._spelt_out = re.compile(
            "(?=" + "|".join(sorted((re.escape(t.content) for t in control), key=len, reverse=True)) + ")" if control else "(?!)"
        )
        # A cut does not help where a token is one character long, or is found in the text after it was normalised.
        self._evades_cuts = any(t.normalized or len(t.content) < 2 for t in control)
        self._control_ids = frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token in control)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Renders messages with the model's chat template, ready for the assistant's turn, and tokenises them.

        Raises:
            InvalidRequest: There is no template, or it does not take these messages.
        """
        if self._template is None:
            raise InvalidRequest("the model has no chat template: send a prompt to /v1/completions", param="messages")
        rendered = self._render([self._turn(message) for message in messages])
        token_ids: list[int] = []
        for piece in rendered.split(self._mark):
            token_ids += self._encode(piece, param="messages", add_special_tokens=False)
        return token_ids

    def text(self, prompt: str) -> list[int]:
        """Tokenises a raw prompt, which may spell control tokens out: it is all the requester's own."""
        return self._encode(prompt, param="prompt", add_special_tokens=True)

    def spell(self, prompt_ids: Sequence[int]) -> str:
        """The text of a prompt that came as token ids."""
        return self._vocabulary.decode(list(prompt_ids))

    def _turn(self, message: Message) -> dict[str, str]:
        # Templates of before 2025 do not know the role; to OpenAI it is what `system` was.
        role = "system" if message.role == "developer" and "developer" not in str(self._template) else message.role
        turn = {"role": role, "content": self._cut(message.text)}
        if message.name is not None:
            turn["name"] = self._cut(message.name)
        return turn

    def _cut(self, text: str) -> str:
        if self._evades_cuts and self._control_ids.intersection(self._encode(text, param="messages", add_special_tokens=False)):
            raise InvalidRequest("a message spells out a control token of the model: leave it out", param="messages")
        cuts = [match.start() + 1 for match in self._spelt_out.finditer(text)]
        return self._mark.join(text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True))

    def _render(self, turns: list[dict[str, str]]) -> str:
        try:
            rendered: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # noqa: BLE001 -- a template is a program of the model's author, and fails in any way
            # Its own words, where they are its own: what is put together from the messages stays out of errors.
            reason = f": {error}" if isinstance(error, TemplateError) and str(error) in str(self._template) else ""
            raise InvalidRequest(f"the model's chat template does not take these messages{reason}", param="messages") from None
        return rendered

    def _encode(self, text: str, *, param: str, add_special_tokens: bool) -> list[int]:
        try:
            token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except (UnicodeEncodeError, TypeError):
            raise InvalidRequest("is not text: it holds half a surrogate pair", param=param) from None
        return token_ids


def _chat_template(tokenizer: Any) -> str | None:
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError:
        return None
    return template
