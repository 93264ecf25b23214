"""Addresses in object stores, as users write them: in one spelling, and without secrets, for they are kept with the job."""

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pipeline.offline.refusals import JobRefused

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
ODD = re.compile(r"//|[*\[\]]")
SECRET = re.compile(r"secret|passw|token|key|^sig", re.IGNORECASE)
"""In names of a query's parameters; those that stores know are of servers, regions and the like."""
WAY_OUT = "write SCHEME://BUCKET or SCHEME://BUCKET/FOLDER, without a fragment, wildcards, empty names, '.' and '..'"


def is_store(address: str) -> bool:
    """Whether it is an address in a store, and not a path of this machine."""
    return "://" in address


def parse_output(text: str) -> str:
    """Reads where results shall go. A path stays as it is; an address gets the spelling that its job is told by.

    Raises:
        JobRefused: It is no sound address, or one that holds a secret.
    """
    if SCHEME.match(text) is None:
        return text
    check_open(text)
    parts = split(text)
    if parts is None or not is_store(text) or ODD.search(parts.netloc + parts.path) or not parts.netloc + parts.path.strip("/"):
        raise JobRefused(f"{text!r} is no address for results: {WAY_OUT}")
    if parts.scheme == "file":
        raise JobRefused("results go to a folder of this machine by its path: leave out file://")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}" + (f"?{parts.query}" if parts.query else "")


def store_of(out: str) -> str | None:
    """The address of results that go to a store; None for a folder's."""
    return out if is_store(out) else None


def absolute(out: str) -> str:
    """The place for results, whatever folder the reader works in."""
    return out if is_store(out) else str(Path(out).absolute())


def extended(out: str, more: str) -> str:
    """A place for results with more at the end of its path, before the query that an address may have."""
    path, question, query = out.partition("?") if is_store(out) else (out, "", "")
    return path + more + question + query


def check_open(address: str) -> None:
    """Sees to it that everybody may read the address.

    Raises:
        JobRefused: It holds a user, a password or a key; the message does not.
    """
    try:
        parts = urlsplit(address)
        names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:
        return  # no store takes it
    if parts.username is not None or any(map(SECRET.search, names)):
        raise JobRefused("an address holds a user, a password or a key: give them by the environment, for addresses are kept with the job")


def split(address: str) -> SplitResult | None:
    """The parts of an address; None for one that readers may take for different things."""
    if not address.isprintable():  # some of what is not would be dropped in silence
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    is_odd = parts.fragment or not parts.scheme or {".", ".."} & set(steps(parts))
    return None if is_odd else parts


def steps(parts: SplitResult) -> list[str]:
    """The names in an address's path."""
    return [step for step in unquote(parts.path).split("/") if step]
