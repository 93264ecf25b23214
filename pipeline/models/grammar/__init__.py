"""A seeded grammar of children's stories and chats about them: the training text of the shipped model.

`documents` gives an endless stream, the same for the same seed. A part of the pairs of hero and thing is in no training document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from pipeline.models.grammar.cast import HELD_OUT_PART, Cast, Split, draw_cast, is_held_out
from pipeline.models.grammar.requests import QUESTIONS, ask_for_story
from pipeline.models.grammar.stories import Length, Telling, tell, title
from pipeline.models.grammar.talk import draw_turn

__all__ = [
    "FEW_QUESTIONS",
    "HELD_OUT_PART",
    "MANY_QUESTIONS",
    "Chat",
    "Document",
    "Plain",
    "Split",
    "documents",
    "is_held_out",
    "stories",
    "story_requests",
]

FEW_QUESTIONS = (0, 1, 1, 2, 3, 4)
MANY_QUESTIONS = (2, 3, 4, 5, 6)
"""How many questions follow a story, to draw from."""

_LENGTHS: tuple[Length, ...] = ("short", "short", "short", "middle", "middle", "long")
_SYSTEM = (
    *("You are a helpful assistant.", "You are Tiny, a small model that tells stories.", "You tell stories to children.", "Answer briefly."),
    *("You are a kind storyteller.", "You are a friendly assistant.", "Be kind and clear."),
)


@dataclass(frozen=True, slots=True)
class Plain:
    """A story without a chat around it."""

    text: str
    after_border: bool
    """Whether the end-of-text token comes before it, as in generation from an empty prompt."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat, as messages of role and content."""

    messages: tuple[tuple[str, str], ...]


Document = Plain | Chat


def stories(seed: int, split: Split) -> Iterator[Document]:
    """Gives an endless stream of the documents with a story alone, no small talk."""
    rng = Random(f"stories {split} {seed}")  # noqa: S311 (text for training, no secret)
    while True:
        yield _draw_plain(rng, split) if rng.random() < 0.2 else _draw_story_chat(rng, split, FEW_QUESTIONS)


def documents(seed: int, split: Split, questions: tuple[int, ...] = FEW_QUESTIONS) -> Iterator[Document]:
    """Gives an endless stream of documents; the stories in it belong to `split`."""
    rng = Random(f"{split} {seed}")  # noqa: S311 (text for training, no secret)
    while True:
        part = rng.random()
        if part < 0.15:
            yield _draw_plain(rng, split)
        elif part < 0.70:
            yield _draw_story_chat(rng, split, questions)
        else:
            yield _draw_talk(rng)


def story_requests(seed: int, split: Split) -> Iterator[tuple[str, Cast]]:
    """Gives requests that name the hero and the thing, each with the cast that it asks for."""
    rng = Random(f"requests {split} {seed}")  # noqa: S311 (text for training, no secret)
    while True:
        cast, telling = draw_cast(rng, split), _draw_telling(rng)
        request = ask_for_story(rng, cast, telling)
        if cast.noun in request and (cast.hero.kind in request or cast.hero.name in request):
            yield request, cast


def _draw_telling(rng: Random) -> Telling:
    return Telling(rng.choice(_LENGTHS), with_moral=rng.random() < 0.2, at_bedtime=rng.random() < 0.06)


def _draw_plain(rng: Random, split: Split) -> Plain:
    cast = draw_cast(rng, split)
    heading = f"{title(rng, cast)}\n\n" if rng.random() < 0.2 else ""
    return Plain(heading + tell(rng, cast, _draw_telling(rng)), after_border=rng.random() < 0.3)


def _draw_story_chat(rng: Random, split: Split, questions: tuple[int, ...]) -> Chat:
    cast, telling = draw_cast(rng, split), _draw_telling(rng)
    messages = [
        *_draw_system(rng),
        *(_draw_exchange(rng) if rng.random() < 0.1 else ()),
        ("user", ask_for_story(rng, cast, telling)),
        ("assistant", tell(rng, cast, telling)),
    ]
    for question in rng.sample(QUESTIONS, rng.choice(questions)):
        cast, asked, answered = question(rng, cast)
        messages += [("user", asked), ("assistant", answered)]
    return Chat(tuple(messages))


def _draw_talk(rng: Random) -> Chat:
    messages = list(_draw_system(rng))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        messages += _draw_exchange(rng)
    return Chat(tuple(messages))


def _draw_exchange(rng: Random) -> list[tuple[str, str]]:
    asked, answered = draw_turn(rng)
    return [("user", asked), ("assistant", answered)]


def _draw_system(rng: Random) -> list[tuple[str, str]]:
    return [("system", rng.choice(_SYSTEM))] if rng.random() < 0.2 else []
