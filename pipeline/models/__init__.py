"""A small model that ships with Penstock, and the code that made it."""

from pathlib import Path
from typing import Final

TINY: Final = Path(__file__).parent / "tiny"
"""The folder of the shipped model, as `from_pretrained` takes it."""
