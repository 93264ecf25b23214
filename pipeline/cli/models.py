"""`penstock models`."""

from dataclasses import asdict

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import tables, write_json
from pipeline.cli.model_card import ModelCard, cards
from pipeline.cli.neutral import neutral
from pipeline.cli.options import Given, Json, with_settings


@with_settings
def models(given: Given, as_json: Json = False) -> None:
    """List the models that a worker with these settings would serve, and the one that ships."""
    found = cards(given.settings())
    if as_json:
        for card in found:
            write_json(asdict(card))
    else:
        tables().print(_table(found))


def _table(found: list[ModelCard]) -> Table:
    table = Table("name", "served", "architecture", "dtype", "context", "weights", "source", box=None, pad_edge=False)
    for card in found:
        context = "" if card.context_tokens is None else f"{card.context_tokens} tokens"
        weights = "" if card.weights_bytes is None else decimal(card.weights_bytes)
        kind = card.problem or card.architecture or ("" if card.is_here else "(not here; a worker fetches it from the hub)")
        told = (card.name, "yes" if card.served else "no", kind, card.dtype or "", context, weights, card.source)
        table.add_row(*(Text(neutral(cell)) for cell in told))
    return table
