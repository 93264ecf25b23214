"""vLLM on CPU, in one process, stepped like ours. Runs in an environment of its own."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.engine.contenders.base import Setup, drive
from benchmarks.engine.limits import size_of
from benchmarks.engine.loads import Ask
from benchmarks.engine.measured import Measured

GIB = 1024**3
CACHE = Path(__file__).parents[3] / ".cache" / "peers" / "vllm-cache"


def start(setup: Setup) -> "Vllm":
    """Loads and warms up; what it compiles is kept between rounds, as a deployment would keep it."""
    os.environ |= {
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{setup.threads - 1}" if setup.threads > 1 else "0",
        "VLLM_CPU_KVCACHE_SPACE": str(_kv_cache_gib(setup)),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CACHE_ROOT": str(CACHE),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm import EngineArgs, LLMEngine  # noqa: PLC0415 -- it reads the environment when it is imported

    has_tokenizer = (Path(setup.folder) / "tokenizer.json").exists()
    engine = LLMEngine.from_engine_args(
        EngineArgs(
            model=setup.folder,
            dtype=setup.dtype,
            max_num_seqs=setup.max_sequences,
            max_model_len=setup.max_tokens_each,
            skip_tokenizer_init=not has_tokenizer,
            disable_log_stats=True,
        )
    )
    contender = Vllm(engine, detokenizes=has_tokenizer)
    contender.run([Ask(prompt_ids=(11,) * 64, max_tokens=2)] * 4, 4)
    return contender


def _kv_cache_gib(setup: Setup) -> int:
    """Whole gibibytes, as it wants them, for all requests at once and a little more."""
    size = size_of(json.loads((Path(setup.folder) / "config.json").read_text(encoding="utf-8")), 2 if setup.dtype == "bfloat16" else 4)
    return max(1, math.ceil(1.2 * setup.max_tokens_all * size.kv_bytes / GIB))


class Vllm:
    """Its engine's own loop, without the `LLM` class around it, which shows no times."""

    def __init__(self, engine: Any, *, detokenizes: bool):
        self._engine = engine
        self._detokenizes = detokenizes
        self._runs = 0

    def run(self, asks: Sequence[Ask], concurrent: int) -> Measured:
        """Steps until all is answered. How long a step takes does not show: it returns what an earlier one computed."""
        self._runs += 1
        return replace(drive(self, asks, concurrent), step_s=())

    def add(self, index: int, ask: Ask) -> None:
        """Hands over token ids."""
        from vllm import SamplingParams  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        params = SamplingParams(
            temperature=0.0, max_tokens=ask.max_tokens, ignore_eos=True, detokenize=self._detokenizes, output_kind=RequestOutputKind.DELTA
        )
        self._engine.add_request(f"{self._runs}/{index}", {"prompt_token_ids": list(ask.prompt_ids)}, params)

    def step(self) -> Iterable[tuple[int, int, bool]]:
        """One step of the engine."""
        return [(int(o.request_id.partition("/")[2]), len(o.outputs[0].token_ids), o.finished) for o in self._engine.step()]
