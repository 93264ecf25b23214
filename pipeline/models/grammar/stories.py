"""Tells a story."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from pipeline.models.grammar.cast import Cast, slots_of
from pipeline.models.grammar.plot import Beat

Length = Literal["short", "middle", "long"]

_EXTRA_SHARE: dict[Length, float] = {"short": 0.0, "middle": 0.5, "long": 1.0}


@dataclass(frozen=True, slots=True)
class Telling:
    """How a story is told."""

    length: Length = "middle"
    with_moral: bool = False
    at_bedtime: bool = False


_OPENINGS = (
    "Once upon a time there was {a_hero}. {He} lived {place}.",
    "Once upon a time, {place}, there lived {a_hero}.",
    "Once there was {a_hero} who lived {place}.",
    "There once lived {a_hero}. {His} home was {place}.",
    "Long ago, {a_hero} lived {place}.",
)
_HABITS = Beat(
    (
        "Every morning {he} sang a little song.",
        "All the neighbours knew {him} well.",
        "{He} liked to look at the clouds and dream.",
        "{His} days were full of games and small adventures.",
        "{He} lived in a small house with a round door.",
    ),
    is_core=False,
)
_BEDTIME = (
    "Then {name} yawned, closed {his} eyes, and slept. Good night.",
    "That night {name} slept well. Good night, and sweet dreams.",
)


def tell(rng: Random, cast: Cast, telling: Telling) -> str:
    """Tells the story in one to a few paragraphs."""
    slots, plot = slots_of(cast), cast.plot
    end = plot.happy_end if cast.ending == "happy" else plot.sad_end
    text = rng.choice(_OPENINGS).format_map(slots)
    for beat in (_HABITS, *plot.beats, *end):
        if beat.is_core or rng.random() < _EXTRA_SHARE[telling.length]:
            breaks = beat.starts_paragraph and telling.length != "short"
            text += ("\n\n" if breaks else " ") + rng.choice(beat.ways).format_map(slots)
    if telling.at_bedtime:
        text += " " + rng.choice(_BEDTIME).format_map(slots)
    if telling.with_moral:
        text += f"\n\nThe moral: {plot.morals[0 if rng.random() < 0.5 else 1]}"
    return text


def title(rng: Random, cast: Cast) -> str:
    """Names the story."""
    return rng.choice(cast.plot.titles).format_map(slots_of(cast))
