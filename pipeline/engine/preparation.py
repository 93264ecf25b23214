"""From a request to work: everything that can be wrong with it is found here, before any state is touched."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace

from pipeline.engine.base import Job
from pipeline.engine.likelihood import GivenText
from pipeline.engine.prompts import Prompts
from pipeline.engine.work import Work
from schemas.errors import InvalidRequest, InvalidToken, PromptTooLong, UnsupportedField
from schemas.request import ChatBody, CompletionBody, Request, SamplingParams


class Preparation:
    """Validates requests against one model.

    Sampling defaults are OpenAI's, from the request; those of a checkpoint's generation config do not apply, so that a
    request means the same with every model.

    Args:
        model: The served model's name.
        vocabulary: Size of the model's embedding; ids lie below it.
        context_tokens: Longest prompt and output together.
        end_ids: The model's end-of-sequence tokens.
        prompts: Its tokenizer; None where it has none, and then only token ids are taken.
        scores_prompts: Whether the log-probabilities of a prompt can be had.
    """

    def __init__(self, *, model: str, vocabulary: int, context_tokens: int, end_ids: frozenset[int], prompts: Prompts | None, scores_prompts: bool):
        self._model = model
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._end_ids = end_ids
        self._prompts = prompts
        self._scores_prompts = scores_prompts

    def prepare(self, request: Request) -> Job:
        """Validates and tokenises a request.

        Raises:
            InvalidRequest: Or one of its classes, with the field at fault.
        """
        body = request.body
        if not isinstance(body, ChatBody | CompletionBody):
            raise InvalidRequest(f"model {self._model!r} generates text; it does not serve {request.endpoint}", param="url")
        sampling = body.sampling
        self._check_ids(sampling.stop_token_ids, "stop_token_ids")
        self._check_ids([token for token, _ in sampling.logit_bias], "logit_bias")
        if sampling.stop and self._prompts is None:
            raise UnsupportedField("the model has no tokenizer, so stop strings cannot be found: use stop_token_ids", param="stop")
        echoes = isinstance(body, CompletionBody) and body.echo
        if echoes and sampling.logprobs is not None and not self._scores_prompts:
            raise UnsupportedField("this model has no log-probabilities of a prompt: leave out echo or logprobs", param="echo")
        param = "messages" if isinstance(body, ChatBody) else "prompt"
        prompt_ids = self._prompt_ids(body)
        if not prompt_ids:
            raise InvalidRequest("the prompt has no tokens", param=param)
        self._check_ids(prompt_ids, param)
        left = self._context_tokens - len(prompt_ids)
        if left < 1:
            raise PromptTooLong(len(prompt_ids), self._context_tokens - 1, param=param)
        echo = self._echo(body) if isinstance(body, CompletionBody) and body.echo else None
        work = self._work(prompt_ids, sampling, left, echo=echo, is_chat=isinstance(body, ChatBody))
        return Job(prompt_tokens=len(prompt_ids), max_output_tokens=work.max_tokens * sampling.n, choices=sampling.n, work=work)

    def prepare_likelihood(self, text: str | Sequence[int]) -> Job:
        """Validates and tokenises a text that is only read.

        Raises:
            InvalidRequest: Or one of its classes.
        """
        if not self._scores_prompts:
            raise InvalidRequest(f"model {self._model!r} runs one sequence at a time and does not tell how likely a text is", param="model")
        token_ids = tuple(text) if not isinstance(text, str) else self._tokenized(text)
        self._check_ids(token_ids, "prompt")
        if len(token_ids) < 2:
            raise InvalidRequest("the text has fewer than two tokens, and the first one's likelihood is not known", param="prompt")
        if len(token_ids) > self._context_tokens:
            raise PromptTooLong(len(token_ids), self._context_tokens, param="prompt")
        return Job(prompt_tokens=len(token_ids), max_output_tokens=0, choices=1, work=GivenText(token_ids))

    def _tokenized(self, text: str) -> tuple[int, ...]:
        if self._prompts is None:
            raise InvalidRequest("the model has no tokenizer: send token ids", param="prompt")
        return tuple(self._prompts.text(text))

    def _prompt_ids(self, body: ChatBody | CompletionBody) -> tuple[int, ...]:
        if isinstance(body, CompletionBody) and isinstance(body.prompt, tuple):
            return body.prompt
        if self._prompts is None:
            param = "messages" if isinstance(body, ChatBody) else "prompt"
            raise InvalidRequest("the model has no tokenizer: send a prompt of token ids to /v1/completions", param=param)
        return tuple(self._prompts.chat(body.messages) if isinstance(body, ChatBody) else self._prompts.text(str(body.prompt)))

    def _echo(self, body: CompletionBody) -> str:
        """The prompt as text: as it was sent, or what its ids stand for."""
        if isinstance(body.prompt, str):
            return body.prompt
        return "" if self._prompts is None else self._prompts.spell(body.prompt)

    def _work(self, prompt_ids: tuple[int, ...], sampling: SamplingParams, left: int, *, echo: str | None, is_chat: bool) -> Work:
        max_tokens = left if sampling.max_tokens is None else min(sampling.max_tokens, left)
        end_ids = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else self._end_ids)
        if sampling.min_tokens and len(end_ids) >= self._vocabulary:
            raise InvalidRequest("every token ends the output, so none can come before min_tokens", param="min_tokens")
        if sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(64) - (1 << 63))
        return Work(
            prompt_ids=prompt_ids,
            sampling=sampling,
            max_tokens=max_tokens,
            min_tokens=min(sampling.min_tokens, max_tokens),
            end_ids=end_ids,
            is_chat=is_chat,
            echo=echo,
        )

    def _check_ids(self, token_ids: Collection[int], param: str) -> None:
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < self._vocabulary:
            raise InvalidToken(f"a token id lies outside the vocabulary: ids go from 0 to {self._vocabulary - 1}", param=param)
