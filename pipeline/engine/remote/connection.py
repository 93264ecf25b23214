"""One server: its address, the worker's key, and how a single request is put to it. Runs in the event loop of the engine's thread."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import SecretStr

from pipeline.engine.remote.events import EventReader
from pipeline.engine.remote.faults import BUSY, fault_of
from schemas.errors import EngineError, PenstockError

CONNECT_S = 10.0
PATIENCE_S = (0.25, 1.0, 4.0)
"""Waits before asking a busy or absent server again. Only before anything was said: what follows is the worker's to decide."""
MAX_FAULT_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where it is. `silence_s` is the longest wait for its next byte."""

    url: str
    api_key: SecretStr | None
    silence_s: float

    def client(self, concurrent: int) -> httpx2.AsyncClient:
        """Connections enough for so many streams. Proxies of the environment apply, redirects do not: they would carry the key elsewhere."""
        headers = {} if self.api_key is None else {"authorization": f"Bearer {self.api_key.get_secret_value()}"}
        return httpx2.AsyncClient(
            base_url=self.url,
            headers=headers,
            timeout=httpx2.Timeout(self.silence_s, connect=CONNECT_S, pool=None),
            limits=httpx2.Limits(max_connections=concurrent, max_keepalive_connections=concurrent),
            follow_redirects=False,
        )


async def events(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> AsyncGenerator[bytes]:
    """Posts a request and gives the data of each event of its answer. Leaving early closes the connection, which tells the server.

    Raises:
        PenstockError: The server refuses, fails, is silent or out of reach.
    """
    for wait_s in (*PATIENCE_S, None):
        try:
            async with client.stream("POST", path, content=json.dumps(body), headers={"content-type": "application/json"}) as response:
                if response.status_code not in BUSY or wait_s is None:
                    async with contextlib.aclosing(_read(response)) as data:
                        async for event in data:
                            yield event
                    return
                pause_s = max(wait_s, _retry_after_s(response))
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if wait_s is None:
                raise EngineError("the server behind this model is out of reach") from None
            pause_s = wait_s
        except httpx2.TimeoutException:
            raise EngineError("the server behind this model fell silent") from None
        except httpx2.HTTPError as error:
            raise EngineError(f"the connection to the server behind this model broke ({type(error).__name__})") from None
        await asyncio.sleep(pause_s)


async def _read(response: httpx2.Response) -> AsyncGenerator[bytes]:
    if response.status_code != 200:
        raise await _fault(response)
    reader = EventReader()
    async for received in response.aiter_bytes():
        for data in reader.feed(received):
            yield data


async def _fault(response: httpx2.Response) -> PenstockError:
    content = b""
    async for received in response.aiter_bytes():
        content += received
        if len(content) > MAX_FAULT_BYTES:
            break
    return fault_of(response.status_code, content)


def _retry_after_s(response: httpx2.Response) -> float:
    """What a busy server asks for, within reason; dates count as nothing."""
    try:
        return min(max(float(response.headers.get("retry-after", 0)), 0.0), 30.0)
    except ValueError:
        return 0.0
