"""The gate before the door: it listens where callers come, ends TLS, and hands on what is not too much.

Behind it Flight's own server listens on a socket that is this user's alone. What passes stays as it is, in both directions.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from pipeline.offline.flight.meter import Answering, Excess, Meter, Room

log = structlog.get_logger(__name__)

ROOM_BYTES = 256 * 1024 * 1024
"""What callers may have on the way, of messages that are not complete: all together as much as Arrow may hold in a worker."""
CONNECTIONS = 256
"""As many as there may be exchanges, which may all be on one."""
CHUNK_BYTES = 128 * 1024
HANDSHAKE_S = 10.0
PARTING_S = 2.0
"""How long a caller that was told to go may take."""
CLOSE_S = 5.0

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Gate:
    """Takes callers in, on a thread of its own.

    Args:
        listening: Where they come.
        inner: The path of the server's socket.
        tls: What they have to speak; None for the clear.
    """

    def __init__(self, listening: socket.socket, inner: Path, tls: ssl.SSLContext | None = None):
        self._listening = listening
        self._inner = inner
        self._tls = tls
        self._room = Room(ROOM_BYTES)
        self._relays: set[asyncio.Task[None]] = set()
        self._is_up = threading.Event()
        self._hang_up: Callable[[], object] | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="bulk-gate", daemon=True)

    def start(self) -> None:
        """Begins to take callers in."""
        self._thread.start()
        self._is_up.wait()

    def close(self) -> None:
        """Hangs up on everybody. It may be done again."""
        if self._hang_up is not None and self._thread.is_alive():
            self._hang_up()
            self._thread.join(CLOSE_S)

    async def _serve(self) -> None:
        loop, closing = asyncio.get_running_loop(), asyncio.Event()
        handshake_s = None if self._tls is None else HANDSHAKE_S
        server = await asyncio.start_server(self._take_in, sock=self._listening, limit=CHUNK_BYTES, ssl=self._tls, ssl_handshake_timeout=handshake_s)
        self._hang_up = lambda: loop.call_soon_threadsafe(closing.set)
        self._is_up.set()
        await closing.wait()
        server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def _take_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._relays) >= CONNECTIONS:
            writer.transport.abort()
            return
        relay = asyncio.create_task(self._hand_on((reader, writer)))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _hand_on(self, caller: Ends) -> None:
        meter = Meter(self._room)
        try:
            server = await asyncio.open_unix_connection(self._inner, limit=CHUNK_BYTES)
            try:
                await Relay(meter, caller, server).run()
            finally:
                server[1].transport.abort()
        except OSError as error:
            log.warning("bulk_caller_lost", detail=str(error))
        finally:
            meter.close()
            caller[1].transport.abort()


class Relay:
    """One connection, until one side hangs up or the caller is told to."""

    def __init__(self, meter: Meter, caller: Ends, server: Ends):
        self._meter = meter
        self._answering = Answering()
        self._from_caller, self._to_caller = caller
        self._from_server, self._to_server = server

    async def run(self) -> None:
        """Hands on in both directions."""
        there, back = asyncio.create_task(self._hand_in()), asyncio.create_task(self._hand_out())
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        excess = None if there.cancelled() else there.result()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PARTING_S):
                await (self._flush() if excess is None else self._part(excess))

    async def _hand_in(self) -> Excess | None:
        with suppress(OSError):
            while data := await self._from_caller.read(CHUNK_BYTES):
                try:
                    self._meter.feed(data)
                except Excess as excess:
                    return excess
                self._to_server.write(data)
                await self._to_server.drain()
        return None

    async def _hand_out(self) -> None:
        with suppress(OSError):
            while await self._hand_out_once():
                pass

    async def _hand_out_once(self) -> bool:
        data = await self._from_server.read(CHUNK_BYTES)
        self._answering.feed(data)
        self._to_caller.write(data)
        await self._to_caller.drain()
        return bool(data)

    async def _flush(self) -> None:
        self._to_caller.close()
        await self._to_caller.wait_closed()

    async def _part(self, excess: Excess) -> None:
        """Tells the caller why, between two frames of the server's, and waits until it has hung up: what it sends meanwhile is let drop."""
        log.warning("bulk_caller_refused", detail=str(excess))
        while not self._answering.is_between and await self._hand_out_once():
            pass
        self._to_server.transport.abort()  # which ends what it asked for
        self._to_caller.write(self._answering.last_word(excess))
        await self._to_caller.drain()
        while await self._from_caller.read(CHUNK_BYTES):
            pass
