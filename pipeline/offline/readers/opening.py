"""Which reader reads a file."""

from collections.abc import Sequence

from pipeline.offline.inputs import Source
from pipeline.offline.readers.arrow import ArrowReader
from pipeline.offline.readers.base import Reader
from pipeline.offline.readers.lines import LinesReader
from pipeline.offline.readers.lines_csv import CsvForm
from pipeline.offline.readers.lines_json import JsonForm
from pipeline.offline.readers.parquet import ParquetReader
from schemas.job import InputFormat, RowGroup


def open_reader(source: Source, groups: Sequence[RowGroup] = ()) -> Reader:
    """Opens a file. `groups` are what a survey found; a file that is read without them can only be surveyed.

    Raises:
        JobRefused: It is not a file of its kind.
    """
    match source.format:
        case InputFormat.PARQUET:
            return ParquetReader(source)
        case InputFormat.ARROW:
            return ArrowReader(source)
        case InputFormat.JSONL:
            return LinesReader(source, JsonForm(), groups)
        case InputFormat.CSV:
            return LinesReader(source, CsvForm(","), groups)
        case InputFormat.TSV:
            return LinesReader(source, CsvForm("\t"), groups)
