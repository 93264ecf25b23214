"""The door between bytes and models: everything that a worker, a client or a reader of the log needs, under one name.

| record   | to bytes                               | from bytes        |
|----------|----------------------------------------|-------------------|
| request  | `encode_request`, `encode_request_batch` | `decode_requests` |
| event    | `encode_event`                         | `decode_event`    |
| result   | `encode_result`                        | `decode_result`   |
"""

from schemas.intake import Refusal, decode_requests
from schemas.limits import Limits
from schemas.request_headers import RequestHeaders
from schemas.result_line import ErrorBody, ResultLine, decode_result, encode_result
from schemas.stream import Received, decode_event, encode_event, error_event
from schemas.submit import BatchRow, encode_request, encode_request_batch

__all__ = [
    "BatchRow",
    "ErrorBody",
    "Limits",
    "Received",
    "Refusal",
    "RequestHeaders",
    "ResultLine",
    "decode_event",
    "decode_requests",
    "decode_result",
    "encode_event",
    "encode_request",
    "encode_request_batch",
    "encode_result",
    "error_event",
]
