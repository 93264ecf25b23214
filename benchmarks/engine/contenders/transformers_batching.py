"""transformers' own continuous batching."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.engine.contenders.base import Setup
from benchmarks.engine.loads import Ask
from benchmarks.engine.measured import Clock, Measured

PAGE_TOKENS = 256
STEP_TOKENS = 1_024
POLL_S = 1.0


def start(setup: Setup) -> "TransformersBatching":
    """Loads, starts its thread, warms up. The cache is given its size: on a CPU it would take most of the memory."""
    torch.set_num_threads(setup.threads)
    model = AutoModelForCausalLM.from_pretrained(
        setup.folder, dtype=getattr(torch, setup.dtype), attn_implementation="sdpa", use_safetensors=True, local_files_only=True
    )
    pages_each = math.ceil(setup.max_tokens_each / PAGE_TOKENS)
    manager = model.eval().init_continuous_batching(
        GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=setup.max_tokens_each),
        ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=setup.max_sequences * pages_each,
            max_batch_tokens=STEP_TOKENS,
            max_requests_per_batch=setup.max_sequences,
            auto_switch_to_flash=False,
        ),
    )
    manager.warmup()
    manager.start()
    contender = TransformersBatching(manager)
    contender.run([Ask(prompt_ids=(11,) * 64, max_tokens=2)] * 4, 4)
    return contender


class TransformersBatching:
    """Times are those that it notes itself for each token: streaming would copy the whole output for each."""

    def __init__(self, manager: Any):
        self._manager = manager
        self._runs = 0

    def run(self, asks: Sequence[Ask], concurrent: int) -> Measured:
        """Keeps `concurrent` requests with its thread until all have ended."""
        self._runs += 1
        clock = Clock()
        sent = ended = 0
        while ended < len(asks):
            while sent < len(asks) and sent - ended < concurrent:
                clock.sends(sent)
                self._send(sent, asks[sent])
                sent += 1
            output = self._manager.get_result(timeout=POLL_S)
            if output is None:
                if not self._manager.is_running():
                    raise RuntimeError("its generation thread ended")
                continue
            if output.error is not None:
                raise RuntimeError(output.error)
            for at_s in output.timestamps:
                clock.gets(int(output.request_id.partition("/")[2]), 1, at_s)
            ended += 1
        return clock.measured()

    def close(self) -> None:
        """Ends its thread, which would keep the process alive."""
        self._manager.stop(block=True)

    def _send(self, index: int, ask: Ask) -> None:
        self._manager.add_request(list(ask.prompt_ids), request_id=f"{self._runs}/{index}", max_new_tokens=ask.max_tokens, record_timestamps=True)
