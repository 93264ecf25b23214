"""Which files and stores a submitted job may name. Who submits may write to a list; who works on it may have other rights.

A name is held against the settings after `..` and links in it are resolved. That does not help against somebody who changes a folder
within a root for a link in the moment between the look and the use: a root is for those who may read what its workers read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult

from pipeline.offline.addresses import is_store, split, steps
from pipeline.offline.refusals import JobRefused

ROOTS, STORES = "jobs.roots (PENSTOCK_JOBS__ROOTS)", "jobs.stores (PENSTOCK_JOBS__STORES)"
OUTPUT_STORES = "jobs.output_stores (PENSTOCK_JOBS__OUTPUT_STORES)"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What lies beneath these may be used: folders of this machine to read and write, stores to read, and those for results to write.

    A store that may be read is not one to write to, nor the other way round: results of one job are not another's to read.
    """

    roots: tuple[Path, ...]
    stores: tuple[str, ...]
    output_stores: tuple[str, ...] = ()

    def check(self, address: str) -> None:
        """Looks at the name of an input, whether it is there or not.

        Raises:
            JobRefused: It leads elsewhere; the message names the setting, and nothing of where it leads.
        """
        self._check(address, self.stores, STORES)

    def check_output(self, address: str) -> None:
        """Looks at where results shall go, in the same way.

        Raises:
            JobRefused: As `check` does.
        """
        self._check(address, self.output_stores, OUTPUT_STORES)

    def _check(self, address: str, stores: Sequence[str], setting: str) -> None:
        if is_store(address):
            _check_store(address, stores, setting)
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


def _check_store(address: str, stores: Sequence[str], setting: str) -> None:
    """Queries count: one of them names the server behind a bucket."""
    wanted = split(address)
    if wanted is None or not any(_holds(store, wanted) for store in map(split, stores) if store is not None):
        raise JobRefused(f"{address.partition('?')[0]} lies in no object store that submitted jobs may use so: see {setting}")


def _holds(store: SplitResult, wanted: SplitResult) -> bool:
    above = steps(store)
    return (
        store.scheme == wanted.scheme
        and store.netloc in ("", wanted.netloc)  # s3:// is every bucket
        and store.query == wanted.query
        and steps(wanted)[: len(above)] == above
    )
