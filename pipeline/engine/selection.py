"""Which engine serves a model, and what part of the worker's memory it gets."""

from collections.abc import Mapping, Sequence

from pipeline.engine.base import Engine
from pipeline.engine.fake import FakeEngine
from pipeline.engine.planning import Planning
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.transit import Transit
from pipeline.settings import EngineKind, EngineSettings, ModelSettings, Settings


def engine_settings(models: Sequence[ModelSettings], settings: Settings) -> Mapping[str, EngineSettings]:
    """Each model's settings by name: those that share this machine's memory get their part of it for a KV cache.

    Raises:
        LoadError: They do not fit together, or one of them cannot be read.
    """
    local = [model for model in models if model.engine is EngineKind.TRANSFORMERS]
    if not local:
        return dict.fromkeys((model.name for model in models), settings.engine)
    from pipeline.engine import checkpoint  # noqa: PLC0415 -- a part of a second

    for model in local:
        checkpoint.find(model.source, model.revision)  # what is missing or not to be trusted is told before anything slow is imported
    from pipeline.engine.memory import plan  # noqa: PLC0415 -- seconds

    parts = plan(local, settings)
    return {
        model.name: settings.engine.model_copy(update={"kv_cache_mib": parts[model.name]}) if model.name in parts else settings.engine
        for model in models
    }


def open_engine(model: ModelSettings, settings: Settings, engine: EngineSettings, transit: Transit | None = None) -> Engine:
    """Makes the engine that the settings name. Each kind's libraries are imported only where it is used.

    Args:
        model: What to serve.
        settings: Device, targets, and where what is learned is kept.
        engine: This model's part of the machine.
        transit: How long live requests take to the engine and from it, where somebody observes that.

    Raises:
        LoadError: The model cannot be served; the message says why and what to do.
    """
    match model.engine:
        case EngineKind.TRANSFORMERS:
            from pipeline.engine.loading import load  # noqa: PLC0415 -- seconds

            return load(model, engine, device=settings.device, dtype=settings.dtype, planning=_planning(settings, transit or Transit()))
        case EngineKind.OPENAI:
            from pipeline.engine.remote.loading import load_remote  # noqa: PLC0415 -- an HTTP client

            return load_remote(model, engine)
        case EngineKind.FAKE:
            return _fake(model.name, engine)


def _planning(settings: Settings, transit: Transit) -> Planning:
    targets = Targets(ttft_s=_seconds(settings.targets.ttft_ms), tpot_s=_seconds(settings.targets.tpot_ms))
    weights = {name: tenant.weight for name, tenant in settings.tenants.items()}
    return Planning(targets=targets, weights=weights, folder=settings.data_dir / "step-times", transit=transit)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _fake(name: str, engine: EngineSettings) -> FakeEngine:
    context = {} if engine.context_tokens is None else {"context_tokens": engine.context_tokens}
    return FakeEngine(name, max_sequences=engine.max_sequences, token_budget=engine.token_budget, **context)
