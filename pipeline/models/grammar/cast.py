"""Casts a story: who is in it, what about, where and when."""

from dataclasses import dataclass
from random import Random
from typing import Literal
from zlib import crc32

from pipeline.models.grammar import words
from pipeline.models.grammar.plot import Plot
from pipeline.models.grammar.plots import PLOTS
from pipeline.models.grammar.words import article

Split = Literal["train", "held_out"]
Ending = Literal["happy", "sad"]

HELD_OUT_PART = 10
"""One in so many pairs of hero and thing is never trained on."""
INVENTED_NAME_SHARE = 0.12
"""Made-up names teach the model to copy a name it has never seen."""


@dataclass(frozen=True, slots=True)
class Being:
    """A hero or a friend."""

    name: str
    kind: str
    trait: str
    is_female: bool

    @property
    def is_child(self) -> bool:
        """Tells whether this is a girl or a boy and no animal."""
        return self.kind in words.CHILDREN.values()

    def pronouns(self) -> tuple[str, str, str, str]:
        """Gives subject, object, possessive and reflexive."""
        return ("she", "her", "her", "herself") if self.is_female else ("he", "him", "his", "himself")


@dataclass(frozen=True, slots=True)
class Cast:
    """All that is fixed about a story before it is told."""

    hero: Being
    friend: Being
    noun: str
    noun_trait: str
    """A colour or a look of the thing; may be empty."""
    place: str
    plot: Plot
    ending: Ending
    mood: str
    look: str
    day: str
    spots: tuple[str, str, str]
    fear: str
    food: str

    @property
    def thing(self) -> str:
        """The thing with its trait."""
        return f"{self.noun_trait} {self.noun}".strip()


def is_held_out(kind: str, noun: str) -> bool:
    """Tells whether stories about this pair of hero and thing are kept out of training."""
    return crc32(f"{kind}/{noun}".encode()) % HELD_OUT_PART == 0


def split_of(cast: Cast) -> Split:
    """Tells which split a cast belongs to."""
    return "held_out" if is_held_out(cast.hero.kind, cast.noun) else "train"


def draw_cast(rng: Random, split: Split) -> Cast:
    """Draws a cast whose pair of hero and thing belongs to `split`."""
    while True:
        hero, noun = _draw_being(rng, child_share=0.3), rng.choice(words.THINGS)
        if is_held_out(hero.kind, noun) == (split == "held_out"):
            return _complete(rng, hero, noun)


def _complete(rng: Random, hero: Being, noun: str) -> Cast:
    plot = rng.choice(PLOTS)
    return Cast(
        hero=hero,
        friend=_draw_friend(rng, hero),
        noun=noun,
        noun_trait=rng.choice((rng.choice(words.COLOURS), rng.choice(words.LOOKS), "")),
        place=rng.choice(words.PLACES),
        plot=plot,
        ending="sad" if rng.random() < 0.15 else "happy",
        mood=rng.choice(plot.moods),
        look=rng.choice(("beautiful", "strange", "fine", "lovely", "wonderful")),
        day=rng.choice(words.DAYS),
        spots=_three(rng),
        fear=rng.choice(words.FEARS),
        food=rng.choice(words.FOODS),
    )


def _three(rng: Random) -> tuple[str, str, str]:
    first, second, third = rng.sample(words.SPOTS, 3)
    return first, second, third


def draw_name(rng: Random, *, is_female: bool) -> str:
    """Draws a known name, or now and then invents one."""
    if rng.random() < INVENTED_NAME_SHARE:
        ends = words.GIRL_ENDS if is_female else words.BOY_ENDS
        return rng.choice(words.NAME_STARTS) + rng.choice(words.NAME_MIDDLES) + rng.choice(ends)
    return rng.choice(words.GIRL_NAMES if is_female else words.BOY_NAMES)


def _draw_being(rng: Random, child_share: float) -> Being:
    is_female = rng.random() < 0.5
    kind = words.CHILDREN[is_female] if rng.random() < child_share else rng.choice(words.ANIMALS)
    is_female = (is_female or kind in words.FEMALE_KINDS) and kind not in words.MALE_KINDS
    return Being(draw_name(rng, is_female=is_female), kind, rng.choice(words.TRAITS), is_female)


def _draw_friend(rng: Random, hero: Being) -> Being:
    """Draws a friend who cannot be mistaken for the hero: another kind, another name, the other pronoun."""
    while True:
        friend = _draw_being(rng, child_share=0.1)
        if friend.is_female != hero.is_female and friend.kind != hero.kind and friend.name != hero.name:
            return friend


def slots_of(cast: Cast) -> dict[str, str]:
    """Gives the words that fill the slots of a plot's sentences."""
    he, him, his, himself = cast.hero.pronouns()
    friend_he, friend_him, friend_his, _ = cast.friend.pronouns()
    spot1, spot2, spot3 = cast.spots
    a_friend = f"{article(f'{cast.friend.trait} {cast.friend.kind}')} named {cast.friend.name}"
    return {
        "name": cast.hero.name,
        "kind": cast.hero.kind,
        "Kind": cast.hero.kind.title(),
        "Hero": cast.hero.name if cast.hero.is_child else f"{cast.hero.name} the {cast.hero.kind}",
        "a_hero": f"{article(f'{cast.hero.trait} {cast.hero.kind}')} named {cast.hero.name}",
        "he": he,
        "him": him,
        "his": his,
        "himself": himself,
        "He": he.capitalize(),
        "His": his.capitalize(),
        "friend": cast.friend.name,
        "a_friend": a_friend,
        "A_friend": capital(a_friend),
        "Friend_kind": cast.friend.kind.title(),
        "friend_he": friend_he,
        "friend_him": friend_him,
        "friend_his": friend_his,
        "noun": cast.noun,
        "Noun": cast.noun.title(),
        "a_noun": article(cast.noun),
        "A_Noun": article(cast.noun).title(),
        "thing": cast.thing,
        "a_thing": article(cast.thing),
        "place": cast.place,
        "day": cast.day,
        "Day": capital(cast.day),
        "look": cast.look,
        "mood": cast.mood,
        "spot1": spot1,
        "spot2": spot2,
        "spot3": spot3,
        "fear": cast.fear,
        "food": cast.food,
    }


def capital(text: str) -> str:
    """Makes the first letter a capital and leaves the rest."""
    return text[0].upper() + text[1:]
