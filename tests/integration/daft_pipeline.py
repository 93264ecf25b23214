"""A cluster of somebody else's, as its user writes it: Daft reads a file, has every batch computed behind a worker's door, and writes the rows.

Run as a program: the door, the file to read and the one to write.
"""

import sys
from typing import Any

import daft
import pyarrow as pa
from daft import DataType, Series
from pyarrow import parquet

from pipeline.offline.flight.mapping import FlightMapper

BATCH_ROWS = 16
ANSWER = DataType.struct(
    {
        "output": DataType.string(),
        "output_token_ids": DataType.list(DataType.int32()),
        "finish_reason": DataType.string(),
        "prompt_tokens": DataType.int32(),
        "output_tokens": DataType.int32(),
        "error_code": DataType.string(),
        "error_message": DataType.string(),
    }
)


@daft.cls(max_concurrency=1, use_process=True)
class Storyteller:
    """Daft makes one in a process of its own, and gives it batch after batch."""

    def __init__(self, worker: str, fields: dict[str, Any]):
        self._mapper = FlightMapper("generate", column="text", model="tiny", worker=worker, **fields)

    @daft.method.batch(return_dtype=ANSWER, unnest=True, batch_size=BATCH_ROWS)
    def tell(self, text: Series) -> pa.Array:
        """A batch of texts in, as many answers out."""
        told = self._mapper(pa.table({"text": text.to_arrow()}))
        return told.drop_columns("text").to_struct_array().combine_chunks()


def main() -> None:
    """Runs the pipeline."""
    worker, source, out = sys.argv[1:]
    storyteller = Storyteller(worker, {"max_tokens": 8, "temperature": 0, "ignore_eos": True})
    rows = daft.read_parquet(source)
    told = rows.select("id", "text", storyteller.tell(rows["text"])).to_arrow()
    parquet.write_table(told, out)


if __name__ == "__main__":
    main()
