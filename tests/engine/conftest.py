"""Models that several tests share; nobody changes them."""

from typing import Any

import pytest

from pipeline.engine.threads import use_threads
from tests.engine.tiny_models import tiny_model
from tests.engine.tiny_tokenizers import byte_level


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny models gain nothing from threads, and lose much where other programs run beside them. Loading a model sets its own number."""
    use_threads(1)


@pytest.fixture(scope="session")
def llama() -> Any:
    """A tiny Llama without a tokenizer."""
    return tiny_model("llama")


@pytest.fixture(scope="session")
def speaker() -> Any:
    """A tiny Llama over the vocabulary of the byte-level tokenizer."""
    return tiny_model("llama", vocab_size=len(byte_level()))
