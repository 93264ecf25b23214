"""Whatever is refused, the refusal holds nothing of what was sent."""

import pytest

from schemas.request import Endpoint
from tests.schemas.lines import CHAT, COMPLETIONS, body_line, refusal, user

CANARY = "canary-7f3a"


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "content": CANARY}, {"role": CANARY, "content": CANARY}]}),
        (CHAT, {"messages": user([{"type": CANARY}])}),
        (CHAT, {"messages": [CANARY]}),
        (CHAT, {"messages": CANARY}),
        (CHAT, {"temperature": CANARY}),
        (CHAT, {"service_tier": CANARY}),
        (CHAT, {"stop": [CANARY, ""]}),
        (CHAT, {"logit_bias": {"1": CANARY}}),
        (CHAT, {"metadata": {"a": [CANARY]}}),
        (CHAT, {"response_format": {"type": CANARY}}),
        (COMPLETIONS, {"prompt": [CANARY, 1]}),
        (COMPLETIONS, {"prompt": [CANARY]}),
        (COMPLETIONS, {"prompt": CANARY + "\ud800"}),
        (Endpoint.EMBEDDINGS, {"input": [CANARY, 1]}),
        (Endpoint.EMBEDDINGS, {"encoding_format": CANARY}),
        (Endpoint.SCORE, {"text_1": [CANARY, ""]}),
        (Endpoint.RERANK, {"query": [CANARY]}),
    ],
)
def test_an_error_never_quotes_what_was_sent(endpoint, fields):
    """Errors go to logs and dead-letter headers: no value of a field may reach them."""
    error = refusal(body_line(endpoint, **fields)).error
    assert CANARY not in f"{error.message} {error.param} {error!r} {error.__context__}"


def test_broken_json_is_not_quoted():
    """The parser's message has a position and no content."""
    assert CANARY not in refusal(f'{{"custom_id": "c", {CANARY}'.encode()).error.message


def test_a_made_up_name_is_cut():
    """A field's name is the requester's too: it is named, but never in full when it is long."""
    error = refusal(body_line(CHAT, **{"x" * 10_000: 1})).error
    assert error.param == "x" * 128
    assert len(error.message) < 300
