"""Files of every kind, read a few rows at a time whatever their size."""

from pipeline.offline.readers.base import Piece, Reader, Survey
from pipeline.offline.readers.opening import open_reader

__all__ = ["Piece", "Reader", "Survey", "open_reader"]
