"""Whether two contenders' results are the same, so that their times can be compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

from benchmarks.child import Failed

CLOSENESS = {"float32": 0.9999, "bfloat16": 0.999}
"""The least cosine of two embeddings of one text, by the coarser dtype of the two: sums have another order, and more or less is rounded."""


def read(paths: Sequence[Path]) -> Any:
    """The rows of some files as one table."""
    return pa.concat_tables([parquet.read_table(path) for path in paths], promote_options="permissive")


def check_embeddings(ours: Any, theirs: Any, *, dtype: str = "float32") -> None:
    """Holds embeddings against one another, row by row.

    Raises:
        Failed: They are of other rows, or differ.
    """
    _check_rows(ours, theirs)
    a, b = (np.stack(table.column("embedding").to_numpy()) for table in (ours, theirs))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    if not (cosines >= (least := CLOSENESS[dtype])).all():
        raise Failed(f"{int((cosines < least).sum())} of {len(cosines)} embeddings differ; the least cosine is {cosines.min():.6f}")


def check_texts(ours: Any, theirs: Any) -> None:
    """Holds outputs against one another: the same text is the same tokens, for both are greedy and end where the model does.

    Raises:
        Failed: They are of other rows, or differ.
    """
    _check_rows(ours, theirs)
    differing = compute.indices_nonzero(
        compute.fill_null(compute.not_equal(ours.column("output"), theirs.column("output")), fill_value=True)
    ).to_pylist()
    if differing:
        a, b = (table.column("output")[differing[0]].as_py() for table in (ours, theirs))
        raise Failed(f"{len(differing)} of {len(ours)} outputs differ; the first one, of row {differing[0]}: {a!r} and {b!r}")


def _check_rows(ours: Any, theirs: Any) -> None:
    if ours.column("id").to_pylist() != theirs.column("id").to_pylist():
        raise Failed(f"{len(theirs)} rows came back of {len(ours)}, or in another order")
