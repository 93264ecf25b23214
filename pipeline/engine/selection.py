"""Which engine serves a model."""

from pipeline.engine.base import Engine
from pipeline.engine.fake import FakeEngine
from pipeline.settings import EngineKind, EngineSettings, ModelSettings, Settings


def open_engine(model: ModelSettings, settings: Settings) -> Engine:
    """Makes the engine that the settings name. Each kind's libraries are imported only where it is used.

    Raises:
        LoadError: The model cannot be served; the message says why and what to do.
    """
    match model.engine:
        case EngineKind.TRANSFORMERS:
            from pipeline.engine.loading import load  # noqa: PLC0415 -- seconds

            return load(model, settings.engine, device=settings.device, dtype=settings.dtype)
        case EngineKind.OPENAI:
            from pipeline.engine.remote.loading import load_remote  # noqa: PLC0415 -- an HTTP client

            return load_remote(model, settings.engine)
        case EngineKind.FAKE:
            return _fake(model.name, settings.engine)


def _fake(name: str, engine: EngineSettings) -> FakeEngine:
    context = {} if engine.context_tokens is None else {"context_tokens": engine.context_tokens}
    return FakeEngine(name, max_sequences=engine.max_sequences, token_budget=engine.token_budget, **context)
