"""`/livez`, `/readyz`, `/metrics` and `/debug/batches` of a worker, on a thread of their own: they answer while a step computes."""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""Returns None when all is well, else one line that says what is not."""

LOOK_S = 0.05
"""How often the thread looks whether it is to end; by default it would add half a second to the end of every worker."""


class HealthServer:
    """A small HTTP server for the orchestrator and the scraper."""

    def __init__(self, host: str, port: int, *, live: Check, ready: Check, registry: CollectorRegistry, batches: Callable[[], dict[str, Any]]):
        self._address = (host, port)
        self._routes: dict[str, Callable[[], tuple[HTTPStatus, str, bytes]]] = {
            "/livez": lambda: _verdict(live()),
            "/readyz": lambda: _verdict(ready()),
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/debug/batches": lambda: (HTTPStatus.OK, "application/json", json.dumps(batches()).encode() + b"\n"),
        }
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        """Listens and returns the base URL.

        Raises:
            OSError: The port is taken.
        """
        routes = self._routes

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                answer = routes.get(self.path.partition("?")[0])
                status, kind, body = answer() if answer else (HTTPStatus.NOT_FOUND, "application/json", b'{"error":"no such page"}\n')
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing: probes come every few seconds."""

        self._server = ThreadingHTTPServer(self._address, Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(LOOK_S,), name="health", daemon=True).start()
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _verdict(fault: str | None) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if fault is None else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps({"ok": fault is None, "detail": fault or "ok"}).encode() + b"\n"
