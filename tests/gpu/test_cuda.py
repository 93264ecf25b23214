"""The engine on a CUDA device: `make gpu`. Without a device these fail; they do not skip."""

import random

import pytest
import torch

from pipeline.engine import resources
from pipeline.settings import DeviceChoice, EngineSettings
from tests.engine.serving import completion, engine_of, ids_of
from tests.engine.tiny_models import VOCABULARY, continued_by_transformers, tiny_model

pytestmark = pytest.mark.gpu


SETTINGS = EngineSettings(max_sequences=4, token_budget=16, block_tokens=4, kv_cache_mib=4)
PROMPTS = [random.Random(i).choices(range(VOCABULARY), k=tokens) for i, tokens in enumerate((27, 3, 12, 40, 9))]


@pytest.fixture(autouse=True)
def exact():
    """Float32 products are computed in float32: TF32 would change which of two close logits is the larger."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = allowed


def test_the_device_is_found():
    """`auto` means CUDA where there is one."""
    assert resources.pick_device(DeviceChoice.AUTO).type == "cuda"
    assert resources.free_memory_bytes(torch.device("cuda")) > 0


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma2", "gpt2", "opt"])
def test_batched_greedy_output_is_that_of_generate(kind):
    """Chunked prefill, mixed decode and preemption on the device give each prompt what it gets alone."""
    model = tiny_model(kind).to("cuda")
    expected = [continued_by_transformers(model.cpu(), prompt, 10) for prompt in PROMPTS]
    answers = ids_of(engine_of(model.to("cuda"), settings=SETTINGS), [completion(p, max_tokens=10) for p in PROMPTS], arrivals=[0, 0, 1, 2, 3])
    assert answers == expected


def test_seeded_output_is_that_of_the_processor():
    """Random numbers are drawn on the host: the device does not change a draw."""
    requests = [completion(p, max_tokens=10, temperature=0.9, seed=i) for i, p in enumerate(PROMPTS)]
    on_host = ids_of(engine_of(tiny_model("llama"), settings=SETTINGS), requests)
    assert ids_of(engine_of(tiny_model("llama").to("cuda"), settings=SETTINGS), requests) == on_host


def test_bfloat16_is_served():
    """In the device's own precision every request gets its tokens."""
    engine = engine_of(tiny_model("llama").to("cuda", torch.bfloat16), settings=SETTINGS)
    assert [len(ids) for ids in ids_of(engine, [completion(p, max_tokens=10, ignore_eos=True) for p in PROMPTS])] == [10] * 5
