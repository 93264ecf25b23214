"""Opens the door where the settings want it, and closes it."""

import os
import socket
import stat
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from pipeline.engine.base import Engine
from pipeline.offline.fingerprint import describe_model
from pipeline.offline.flight.lobby import Lobby
from pipeline.offline.flight.server import FlightDoor
from pipeline.offline.flight.wire import Served, Welcome
from pipeline.settings import BadConfiguration, BulkSettings, Settings

log = structlog.get_logger(__name__)

UNIX = "unix://"
SOCKET_BYTES = 107
"""The longest path of a socket (unix(7))."""
CLOSE_S = 2.0


@dataclass(slots=True)
class OpenDoor:
    """A door that listens; `uri` is its address for callers of this machine, or of the network."""

    uri: str
    server: FlightDoor
    socket: Path | None

    def close(self) -> bool:
        """Stops listening; False where a caller that does not take its answers still holds a thread, which only the process's end lets go."""
        closing = threading.Thread(target=self.server.shutdown, name="bulk-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        return not closing.is_alive()


def open_door(settings: Settings, lobby: Lobby) -> OpenDoor | None:
    """Listens; None where there is to be no door.

    Raises:
        BadConfiguration: The address is taken or too long, or a file can't be read.
    """
    bulk = settings.bulk
    if bulk.url == "off":
        return None
    if bulk.url is not None and not bulk.url.startswith(UNIX):
        return _open_tls(bulk, bulk.url, lobby)
    if bulk.url is not None:
        path = Path(bulk.url.removeprefix(UNIX))
        if len(os.fsencode(path)) > SOCKET_BYTES:
            raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): the path of a socket has at most {SOCKET_BYTES} bytes, and {path} has more")
        return _open_socket(path, lobby)
    path = (settings.data_dir / f"bulk-{os.getpid()}.sock").absolute()
    if len(os.fsencode(path)) > SOCKET_BYTES:  # nobody asked for it, and requests from the log don't need it
        log.warning("bulk_door_shut", detail=f"the path of a socket in data_dir has more than {SOCKET_BYTES} bytes: set bulk.url", path=str(path))
        return None
    return _open_socket(path, lobby)


def welcome(settings: Settings, engines: Mapping[str, Engine], *, depth: int) -> Welcome:
    """What the worker tells of itself; the models by the content of their files."""
    served = tuple(Served(spec=describe_model(model, settings.dtype), dtype=engines[model.name].info.dtype) for model in settings.served_models)
    return Welcome(instance=uuid.uuid4().hex, depth=depth, models=served)


def _open_socket(path: Path, lobby: Lobby) -> OpenDoor:
    _check_free(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with _private():
            server = FlightDoor(lobby, f"grpc+unix://{path}")
    except OSError as error:
        raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): can't listen on {path}: {_first_line(error)}") from None
    return OpenDoor(f"{UNIX}{path}", server, path)


def _open_tls(bulk: BulkSettings, url: str, lobby: Lobby) -> OpenDoor:
    if bulk.certificate is None or bulk.key is None or bulk.token is None:
        raise BadConfiguration("bulk.url with grpc+tls needs bulk.certificate, bulk.key and bulk.token")
    tls = _read(bulk.certificate, "certificate"), _read(bulk.key, "key")
    try:
        server = FlightDoor(lobby, url, tls=tls, token=bulk.token.get_secret_value())
    except OSError as error:
        raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): can't listen on {url}: {_first_line(error)}") from None
    host = url.removeprefix("grpc+tls://").rpartition(":")[0]
    return OpenDoor(f"grpc+tls://{host}:{server.port}", server, None)


def _check_free(path: Path) -> None:
    """Flight would take the path away from whoever listens there, or from a file.

    Raises:
        BadConfiguration: Somebody does, or it is a file.
    """
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): {path} is a file")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): another process listens on {path}")


@contextmanager
def _private() -> Iterator[None]:
    """A socket made here can be opened by this user alone, from its first moment."""
    former = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(former)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfiguration(f"bulk.{name} (PENSTOCK_BULK__{name.upper()}): {path}: {error.strerror}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
