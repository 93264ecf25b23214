"""What a plot is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Beat:
    """One step of a story."""

    ways: tuple[str, ...]
    is_core: bool = True
    """A core beat is in every telling; the others are left out of short ones."""
    starts_paragraph: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with two endings, and the facts that questions are answered from."""

    topics: tuple[str, ...]
    asks: tuple[str, ...]
    """How a request describes the hero's part in this plot, after "who"."""
    beats: tuple[Beat, ...]
    happy_end: tuple[Beat, ...]
    sad_end: tuple[Beat, ...]
    moods: tuple[str, ...]
    because: str
    happened: str
    happy_summary: str
    sad_summary: str
    morals: tuple[str, ...]
    titles: tuple[str, ...]
    helped: str


def core(*ways: str) -> Beat:
    """Makes a beat of every telling."""
    return Beat(ways)


def extra(*ways: str) -> Beat:
    """Makes a beat that short tellings leave out."""
    return Beat(ways, is_core=False)


def turn(*ways: str) -> Beat:
    """Makes a beat of every telling that opens a paragraph."""
    return Beat(ways, starts_paragraph=True)
