"""Where a worker's door is, and what opens it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from pipeline.offline.refusals import JobRefused
from pipeline.settings import Settings

AUTO = "auto"
UNIX, TLS = "unix://", "grpc+tls://"


class WorkerAway(ConnectionError):
    """No worker answers, or none that takes rows now; what was answered is kept, and the job can go on later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAddress:
    """How to reach a worker.

    Attributes:
        uri: `unix:///path`, `grpc+tls://host:port`, or `auto`: the worker of this machine that runs with the same data folder.
        data_dir: That folder.
        token: Goes with TLS.
        authorities: Certificates to trust, in PEM; None for the system's.
    """

    uri: str
    data_dir: Path
    token: SecretStr | None = None
    authorities: Path | None = None

    @classmethod
    def of(cls, uri: str, settings: Settings) -> Self:
        """An address with what the settings know of it.

        Raises:
            JobRefused: It is none.
        """
        address = cls(uri=uri, data_dir=settings.data_dir, token=settings.bulk.token, authorities=settings.bulk.authorities)
        address.check()
        return address

    def check(self) -> None:
        """Refuses what is no address.

        Raises:
            JobRefused: It is not one of the three kinds, or lacks the token.
        """
        if self.uri != AUTO and not self.uri.startswith((UNIX, TLS)):
            raise JobRefused(f"--worker {self.uri}: write auto, unix:///PATH or grpc+tls://HOST:PORT")
        if self.uri.startswith(TLS) and self.token is None:
            raise JobRefused("a worker over the network wants a token: set bulk.token (PENSTOCK_BULK__TOKEN)")

    def resolve(self) -> str:
        """The address of a door that is there now; asked anew for each connection, since a worker that comes back has another.

        Raises:
            WorkerAway: No worker runs with that data folder.
        """
        if self.uri != AUTO:
            return self.uri
        for card in sorted(self.data_dir.glob("worker-*.json"), key=_age):
            if (found := _door(card)) is not None:
                return found
        raise WorkerAway(f"no worker with a door for rows runs with the data folder {self.data_dir}: start one, or give its address")

    def authorities_pem(self) -> bytes | None:
        """The certificates to trust.

        Raises:
            JobRefused: They can't be read.
        """
        if self.authorities is None:
            return None
        try:
            return self.authorities.read_bytes()
        except OSError as error:
            raise JobRefused(f"bulk.authorities {self.authorities}: {error.strerror}") from None


def _age(card: Path) -> float:
    """The youngest first."""
    try:
        return -card.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _door(card: Path) -> str | None:
    try:
        said = json.loads(card.read_text(encoding="utf-8"))
        os.kill(int(said["pid"]), 0)
        return str(said["bulk"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
