"""The Python SDK: submit requests, read answers, with the reader's rule inside.

    with Client.connect("127.0.0.1:9092") as client:
        for delta in client.stream({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}):
            print(delta.text, end="")

`Client` and `AsyncClient` share one core: a connection with one reader thread, and a transcript per open request.
"""

from pipeline.client.aio import AsyncClient, AsyncHandle
from pipeline.client.handle import Handle
from pipeline.client.outcome import Delta, Result
from pipeline.client.reader import Reader, Reading
from pipeline.client.sync import Client

__all__ = ["AsyncClient", "AsyncHandle", "Client", "Delta", "Handle", "Reader", "Reading", "Result"]
