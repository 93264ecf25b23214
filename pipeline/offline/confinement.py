"""Which files and stores a submitted job may name. Who submits may write to a list; who works on it may have other rights.

A name is held against the settings after `..` and links in it are resolved. That does not help against somebody who changes a folder
within a root for a link in the moment between the look and the use: a root is for those who may read what its workers read.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from pipeline.offline.refusals import JobRefused

ROOTS, STORES = "jobs.roots (PENSTOCK_JOBS__ROOTS)", "jobs.stores (PENSTOCK_JOBS__STORES)"


@dataclass(frozen=True, slots=True)
class Confinement:
    """Folders of this machine, and addresses in object stores; what lies beneath them may be used."""

    roots: tuple[Path, ...]
    stores: tuple[str, ...]

    def check(self, address: str) -> None:
        """Looks at the name of an input or of a folder of results, whether it is there or not.

        Raises:
            JobRefused: It leads elsewhere; the message names the setting, and nothing of where it leads.
        """
        if "://" in address:
            self._check_store(address)
        else:
            self._check_path(address)

    def _check_path(self, address: str) -> None:
        try:
            path = Path(address).resolve()
            is_inside = any(path.is_relative_to(root.resolve()) for root in self.roots)
        except (OSError, RuntimeError, ValueError):  # a loop of links, a byte that no name has
            raise JobRefused(f"{address!r} is no sound path") from None
        if not is_inside:
            raise JobRefused(f"{address} lies in no folder that submitted jobs may use: see {ROOTS}")

    def _check_store(self, address: str) -> None:
        """Queries count: one of them names the server behind a bucket."""
        wanted = _split(address)
        if wanted is None or not any(_holds(store, wanted) for store in map(_split, self.stores) if store is not None):
            raise JobRefused(f"{address.partition('?')[0]} lies in no object store that submitted jobs may use: see {STORES}")


def _split(address: str) -> SplitResult | None:
    """The parts of an address; None for one that readers may take for different things."""
    if not address.isprintable():  # some of what is not would be dropped in silence
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    is_odd = parts.fragment or not parts.scheme or {".", ".."} & set(_steps(parts))
    return None if is_odd else parts


def _steps(parts: SplitResult) -> list[str]:
    return [step for step in unquote(parts.path).split("/") if step]


def _holds(store: SplitResult, wanted: SplitResult) -> bool:
    steps = _steps(store)
    return (
        store.scheme == wanted.scheme
        and store.netloc in ("", wanted.netloc)  # s3:// is every bucket
        and store.query == wanted.query
        and _steps(wanted)[: len(steps)] == steps
    )
