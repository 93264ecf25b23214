"""A server of OpenAI's API in this process, over a real socket: it says what a test tells it to, and notes what it sees."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-nobody-may-read-this"


@dataclass
class Server:
    """What the handler and the test share. `script` answers a generation; `models` is the list of models, or a status."""

    port: int = 0
    script: Callable[["Handler", dict[str, Any]], None] = lambda handler, body: handler.words(body, "a", "b")
    models: Any = field(default_factory=lambda: {"data": [{"id": "big", "max_model_len": 512}]})
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    disconnects: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go_on: threading.Event = field(default_factory=threading.Event)
    open_now: int = 0
    open_most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    shared: Server

    def log_message(self, *_: Any) -> None:
        """Says nothing on the terminal."""

    def do_GET(self) -> None:
        self.shared.keys.add(self.headers["authorization"])
        models = self.shared.models
        self.whole(models if isinstance(models, int) else 200, models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        shared = self.shared
        with shared.lock:
            shared.keys.add(self.headers["authorization"])
            shared.paths.append(self.path)
            shared.bodies.append(body)
            shared.open_now += 1
            shared.open_most = max(shared.open_most, shared.open_now)
        try:
            shared.script(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            shared.disconnects.release()
        finally:
            with shared.lock:
                shared.open_now -= 1

    def whole(self, status: int, content: Any, **headers: str) -> None:
        """An answer in one piece."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        """Opens a stream of events."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def raw(self, data: bytes) -> None:
        """Sends bytes as they are, as a chunk of the transfer."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def event(self, **chunk: Any) -> None:
        """Sends one event."""
        self.raw(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def close_stream(self) -> None:
        """Ends the stream as it should."""
        self.raw(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Drops the connection in the middle."""
        self.close_connection = True

    def words(self, body: dict[str, Any], *words: str, usage: bool = True) -> None:
        """A whole answer: a chunk for each word of each choice, the ends, the usage."""
        self.begin()
        for number, text in enumerate(words):
            for index in range(body["n"]):
                ids = {"token_ids": [number]} if body.get("return_token_ids") else {}
                self.event(choices=[{"index": index, "finish_reason": None, **said(body, text), **ids}])
        for index in range(body["n"]):
            self.event(choices=[{"index": index, "finish_reason": "length", **said(body, "")}])
        if usage:
            self.event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 40})
        self.close_stream()


def said(body: dict[str, Any], text: str) -> dict[str, Any]:
    """Text, in the form of the endpoint that was asked."""
    return {"delta": {"content": text}} if "messages" in body else {"text": text}


@contextmanager
def serving() -> Iterator[Server]:
    """A server that listens; it lets go of waiting handlers in the end."""
    shared = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"shared": shared}))
    http.daemon_threads = False
    shared.port = http.server_port
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield shared
    finally:
        shared.go_on.set()
        http.shutdown()
        thread.join()
        http.server_close()
