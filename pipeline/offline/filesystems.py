"""From an address in an object store to pyarrow's file system for it, which tries again by itself for half a minute at most.

A job that waits says so, can be paused, and is looked at again; a client that waits does none of that.
"""

from typing import Any

from pyarrow import fs

HUB = "hf://"
GOOGLE = ("gs://", "gcs://")
GOOGLE_RETRY_S = 30
"""By itself its client goes on for a quarter of an hour; that of S3 gives up after some seconds, that of the hub within half a minute."""
GOOGLE_RETRY = "retry_limit_seconds"


def open_filesystem(uri: str) -> tuple[Any, str]:
    """The file system of an address, and the path there. Who gives a time to try in the address gets that.

    Raises:
        ValueError: It is no sound address.
        ImportError: What speaks to such a store is not installed.
        OSError: The store's client does not begin.
    """
    if uri.startswith(HUB):
        from pipeline.offline.hub import open_hub  # noqa: PLC0415 -- brings an HTTP client, which no other address needs

        return open_hub(uri)
    if uri.startswith(GOOGLE) and f"{GOOGLE_RETRY}=" not in uri.partition("?")[2]:
        uri += f"{'&' if '?' in uri else '?'}{GOOGLE_RETRY}={GOOGLE_RETRY_S}"
    filesystem, path = fs.FileSystem.from_uri(uri)
    return filesystem, path
