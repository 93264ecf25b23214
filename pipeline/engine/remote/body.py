"""What is sent for a request: the requester's fields, every default spelt out, so that a server's own defaults never apply."""

from typing import Any

from pipeline.settings import Dialect
from schemas.errors import InvalidRequest, UnsupportedField
from schemas.request import ChatBody, CompletionBody, Message, Request, SamplingParams

NEUTRAL = SamplingParams(max_tokens=None)
EXTENSIONS = ("top_k", "min_p", "min_tokens", "stop_token_ids", "ignore_eos", "repetition_penalty")
"""Fields that vLLM added to OpenAI's."""
BYTES_PER_TOKEN = 4
"""A guess, for admission only: what is reported in the end is the server's count."""


def generation_body(request: Request, served: str) -> ChatBody | CompletionBody:
    """The request's body, where it asks for text.

    Raises:
        InvalidRequest: It asks for something else.
    """
    if not isinstance(request.body, ChatBody | CompletionBody):
        raise InvalidRequest(f"model {served!r} generates text; it does not serve {request.endpoint}", param="url")
    return request.body


def remote_body(body: ChatBody | CompletionBody, model: str, dialect: Dialect) -> dict[str, Any]:
    """The JSON object for the server.

    Raises:
        UnsupportedField: A field that the server's dialect lacks is set to more than its default.
    """
    sampling = body.sampling
    common: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": sampling.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    optional = {
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
    }
    fields = common | {name: value for name, value in optional.items() if value is not None}
    return fields | _extensions(sampling, dialect) | (_chat(body) if isinstance(body, ChatBody) else _completion(body))


def guessed_tokens(body: ChatBody | CompletionBody) -> int:
    """About how long the prompt is; token ids are counted."""
    if isinstance(body, ChatBody):
        return 1 + sum(len(message.text.encode(errors="replace")) for message in body.messages) // BYTES_PER_TOKEN
    return len(body.prompt) if isinstance(body.prompt, tuple) else 1 + len(body.prompt.encode(errors="replace")) // BYTES_PER_TOKEN


def _extensions(sampling: SamplingParams, dialect: Dialect) -> dict[str, Any]:
    if dialect is Dialect.VLLM:
        own = {name: getattr(sampling, name) for name in EXTENSIONS}
        return own | {"top_k": sampling.top_k or -1, "stop_token_ids": list(sampling.stop_token_ids), "return_token_ids": True}
    for name in EXTENSIONS:
        if getattr(sampling, name) != getattr(NEUTRAL, name):
            raise UnsupportedField("is not a field of the server behind this model: leave it out", param=name)
    return {}


def _chat(body: ChatBody) -> dict[str, Any]:
    logprobs = {} if body.logprobs_count is None else {"logprobs": True, "top_logprobs": body.logprobs_count}
    return {"messages": [_turn(message) for message in body.messages]} | logprobs


def _completion(body: CompletionBody) -> dict[str, Any]:
    logprobs = {} if body.logprobs is None else {"logprobs": body.logprobs}
    prompt = list(body.prompt) if isinstance(body.prompt, tuple) else body.prompt
    return {"prompt": prompt, **({"echo": True} if body.echo else {})} | logprobs


def _turn(message: Message) -> dict[str, str]:
    turn = {"role": message.role, "content": message.text}
    return turn if message.name is None else turn | {"name": message.name}
