"""Opens the door where the settings want it, and closes it."""

import os
import secrets
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from pipeline.engine.base import Engine
from pipeline.offline.fingerprint import describe_model
from pipeline.offline.flight.gate import Gate
from pipeline.offline.flight.listening import SOCKET_BYTES, UNIX, Listening, fits, listen_for_others, listen_here, private
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.server import FlightDoor
from pipeline.offline.flight.wire import Served, Welcome
from pipeline.settings import BadConfiguration, Settings

log = structlog.get_logger(__name__)

CLOSE_S = 2.0
HANG_UP_S = 0.5


@dataclass(slots=True)
class OpenDoor:
    """A door that listens on a socket of its own, `inner`, and the gate before it."""

    server: FlightDoor
    gate: Gate
    listening: Listening
    inner: Path

    @property
    def uri(self) -> str:
        """Its address for callers of this machine, or of the network."""
        return self.listening.uri

    @property
    def socket(self) -> Path | None:
        """The path of the socket that callers of this machine open."""
        return self.listening.path

    def close(self) -> bool:
        """Stops listening; False where a caller still holds a thread, which only the process's end lets go."""
        closing = threading.Thread(target=self.server.shutdown, name="bulk-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        self.gate.close()  # on those, too, who do not take their answers
        closing.join(HANG_UP_S)
        self.listening.close()
        self.inner.unlink(missing_ok=True)
        return not closing.is_alive()


def open_door(settings: Settings, lobby: Lobby) -> OpenDoor | None:
    """Listens; None where there is to be no door.

    Raises:
        BadConfiguration: The address is taken or too long, or a file can't be read.
    """
    bulk = settings.bulk
    if bulk.url == "off":
        return None
    inner = (settings.data_dir / f"door-{secrets.token_hex(4)}.sock").absolute()
    path = (settings.data_dir / f"bulk-{os.getpid()}.sock").absolute()
    if bulk.url is None and not (fits(path) and fits(inner)):  # nobody asked for it, and requests from the log don't need it
        log.warning("bulk_door_shut", detail=f"the path of a socket in data_dir has over {SOCKET_BYTES} bytes: take a shorter one", path=str(path))
        return None
    if bulk.url is not None and not bulk.url.startswith(UNIX):
        return _open(lobby, listen_for_others(bulk.url, bulk), inner, None if bulk.token is None else bulk.token.get_secret_value())
    return _open(lobby, listen_here(path if bulk.url is None else Path(bulk.url.removeprefix(UNIX))), inner)


def welcome(settings: Settings, engines: Mapping[str, Engine], *, depth: int) -> Welcome:
    """What the worker tells of itself; the models by the content of their files."""
    served = tuple(Served(spec=describe_model(model, settings.dtype), dtype=engines[model.name].info.dtype) for model in settings.served_models)
    return Welcome(instance=uuid.uuid4().hex, depth=depth, models=served)


def _open(lobby: Lobby, listening: Listening, inner: Path, token: str | None = None) -> OpenDoor:
    try:
        server = _serve_behind(lobby, inner, token)
    except BaseException:
        listening.close()
        raise
    gate = Gate(listening.socket, inner, listening.tls)
    gate.start()
    return OpenDoor(server, gate, listening, inner)


def _serve_behind(lobby: Lobby, inner: Path, token: str | None) -> FlightDoor:
    if not fits(inner):
        raise BadConfiguration(f"data_dir (PENSTOCK_DATA_DIR): the path of a socket has at most {SOCKET_BYTES} bytes, and {inner} has more")
    try:
        inner.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with private():
            return FlightDoor(lobby, f"grpc+unix://{inner}", token=token)
    except OSError as error:
        detail = str(error).partition("\n")[0]
        raise BadConfiguration(f"data_dir (PENSTOCK_DATA_DIR): can't listen on {inner}: {detail}") from None
