"""From settings to a remote engine: the server is asked once whether it is there, takes the key, and has the model."""

from typing import Any

import httpx2
import structlog

from pipeline.engine.base import ModelInfo
from pipeline.engine.load_error import LoadError
from pipeline.engine.remote.connection import CONNECT_S, Server
from pipeline.engine.remote.engine import RemoteEngine
from pipeline.settings import EngineSettings, ModelSettings

log = structlog.get_logger(__name__)


def load_remote(model: ModelSettings, engine: EngineSettings) -> RemoteEngine:
    """Asks the server for its models and makes an engine of the one that is meant.

    Raises:
        LoadError: It is out of reach, refuses the key, or does not have the model.
    """
    server = Server(url=(model.url or "").rstrip("/") + "/", api_key=model.api_key, silence_s=model.silence_s)
    card = _find(_models(server, model), model)
    context_tokens = card.get("max_model_len")
    info = ModelInfo(
        name=model.name,
        source=model.source,
        revision=None,
        architecture="remote",
        parameters=0,
        dtype="unknown",
        device="remote",
        context_tokens=context_tokens if isinstance(context_tokens, int) else 0,
        vocabulary=0,
    )
    log.info("remote model found", model=model.name, source=model.source, dialect=model.dialect.value, concurrent=engine.max_sequences)
    return RemoteEngine(info=info, server=server, model=model.source, dialect=model.dialect, concurrent=engine.max_sequences)


def _models(server: Server, model: ModelSettings) -> Any:
    headers = {} if server.api_key is None else {"authorization": f"Bearer {server.api_key.get_secret_value()}"}
    try:
        response = httpx2.get(f"{server.url}models", headers=headers, timeout=CONNECT_S)
    except httpx2.HTTPError as error:
        raise LoadError(f"{model.name}: no server answers at its url ({type(error).__name__}): start it or correct the url") from None
    if response.status_code in {401, 403}:
        raise LoadError(f"{model.name}: the server refuses the key ({response.status_code}): set the model's api_key")
    if response.status_code != 200:
        raise LoadError(f"{model.name}: the server answers {response.status_code} where its models are listed: is the url its /v1?")
    try:
        return response.json()
    except ValueError:
        raise LoadError(f"{model.name}: the server's list of models is not JSON: is the url its /v1?") from None


def _find(listed: Any, model: ModelSettings) -> dict[str, Any]:
    cards = listed.get("data") if isinstance(listed, dict) else None
    by_name = {card["id"]: card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)} if isinstance(cards, list) else {}
    if model.source not in by_name:
        raise LoadError(f"{model.name}: the server has no model {model.source!r}; it has {', '.join(sorted(by_name)[:10]) or 'none'}")
    card: dict[str, Any] = by_name[model.source]
    return card
