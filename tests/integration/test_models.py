"""One worker process that serves models of every kind side by side, seen from outside."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from pipeline.models import TINY
from tests.engine.pooling.tiny_encoders import tiny_encoder, word_pieces
from tests.engine.tiny_models import COMMON
from tests.engine.tiny_tokenizers import byte_level
from tests.openai_server import KEY, Handler, Server, serving
from tests.peer import line

pytestmark = pytest.mark.integration

WITHIN_S = 30.0
TEXTS = ["The water turns the wheel.", "corn"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that cannot be batched and an encoder, on disk with their tokenizers."""
    directory = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = AutoConfig.for_model("mamba", **(COMMON | {"state_size": 8, "vocab_size": len(byte_level())}))
    networks = {
        "serial": (AutoModelForCausalLM.from_config(config, dtype=torch.float32), byte_level()),
        "encoder": (tiny_encoder("bert"), word_pieces()),
    }
    for name, (network, tokenizer) in networks.items():
        network.save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)
    return {name: directory / name for name in networks}


def alone(folder: Path, prompt_ids: list[int], tokens: int) -> list[int]:
    """What a model generates for one prompt, greedily, whatever the token."""
    model, ids = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), torch.tensor([prompt_ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, eos_token_id=-1, pad_token_id=0)
    return out[0, len(prompt_ids) :].tolist()


def embedded(folder: Path, text: str) -> np.ndarray:
    """The mean of an encoder's last hidden states, at length 1."""
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**word_pieces()(text, return_tensors="pt")).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy()


def babble(server: Server):
    """A server's script: two words, or words without end for the prompt that asks for them."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        if body["prompt"] != "on and on":
            handler.words(body, "a", "b")
            return
        handler.begin()
        while not server.go_on.is_set():
            handler.event(choices=[{"index": 0, "text": "x", "finish_reason": None}])
            time.sleep(0.01)

    return answer


def plans(log: str) -> dict[str, dict[str, int]]:
    """The lines of the memory plan, by model."""
    events = [json.loads(text) for text in log.splitlines() if '"memory_plan"' in text]
    return {event["model"]: event for event in events}


def test_models_of_every_kind_share_one_worker(start_worker, connect, folders):
    """Batched, one at a time, pooled and remote ones: each answers as it does alone, a cancel reaches the remote server, the end is clean."""
    with serving() as server:
        server.script = babble(server)
        models = [{"name": "tiny", "source": str(TINY)}] + [{"name": name, "source": str(folder)} for name, folder in folders.items()]
        models.append({"name": "remote", "source": "big", "engine": "openai", "url": server.url, "api_key": KEY})
        worker = start_worker(PENSTOCK_MODELS=json.dumps(models))
        peer = connect()
        prompts = {"tiny": (TINY, list(range(20, 60))), "serial": (folders["serial"], list(range(5, 18)))}
        peer.publish(line("endless", model="remote", prompt="on and on"))
        for model, (_, prompt) in prompts.items():
            peer.publish_all([line(f"{model}-{n}", model=model, prompt=prompt[n:], temperature=0, max_tokens=8, ignore_eos=True) for n in range(3)])
        peer.publish(line("words", model="serial", prompt="The water", max_tokens=4, ignore_eos=True))
        peer.publish(line("far", model="remote", prompt="near"))
        peer.publish(line("absent", model="absent", prompt="a"))
        peer.publish({"custom_id": "vectors", "method": "POST", "url": "/v1/embeddings", "body": {"model": "encoder", "input": TEXTS}})
        for model, (folder, prompt) in prompts.items():
            for n, stream in enumerate(peer.wait(*(f"{model}-{n}" for n in range(3)))):
                assert stream.token_ids == alone(folder, prompt[n:], 8), (model, n)
        words, far, absent = peer.wait("words", "far", "absent")
        assert words.text == byte_level().decode(words.token_ids, skip_special_tokens=True)
        assert (far.text, far.finish_reason) == ("ab", "length")
        assert absent.code == "unknown_model"
        vectors = [entry["embedding"] for entry in peer.wait_result("vectors")["response"]["body"]["data"]]
        np.testing.assert_allclose(vectors, [embedded(folders["encoder"], text) for text in TEXTS], atol=1e-5)
        peer.wait_until(lambda: "endless" in peer.streams and peer.streams["endless"].chunks, WITHIN_S, "the first remote chunk")
        assert peer.streams["endless"].terminal is None
        peer.cancel("endless")
        assert peer.wait("endless")[0].code == "cancelled"
        assert server.disconnects.acquire(timeout=WITHIN_S), "the server goes on for nobody"
        peer.wait_no_lag(peer.prefix)
        assert worker.stop() == 0
    log = worker.log()
    assert "Traceback" not in log
    assert KEY not in log
    assert log.count('"model_not_batched"') == 1
    planned = plans(log)
    assert set(planned) == {"tiny", "serial", "encoder"}
    (free_mib,) = {plan["free_mib"] for plan in planned.values()}
    assert sum(plan[part] for plan in planned.values() for part in ("weights_mib", "kv_cache_mib", "workspace_mib")) <= free_mib
