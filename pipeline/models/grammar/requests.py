"""The ways to ask for a story and to ask about one."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from pipeline.models.grammar import words
from pipeline.models.grammar.cast import Cast, Ending, draw_cast, slots_of, split_of
from pipeline.models.grammar.plots import LOST
from pipeline.models.grammar.stories import Telling, tell
from pipeline.models.grammar.words import article

_VERBS = (
    *("Tell me", "Tell me", "Please tell me", "Can you tell me", "Could you tell me", "I want to hear", "I would like", "Give me"),
    *("Write", "Write", "Please write", "Write me", "Make up", "Can you write"),
)
_HEROES = ("{a_kind}", "{a_trait_kind}", "{a_trait_kind}", "{a_kind} named {name}", "{a_trait_kind} named {name}", "{a_kind} called {name}")


def ask_for_story(rng: Random, cast: Cast, telling: Telling) -> str:
    """Asks for exactly this story, saying more or less of what is in it."""
    verb = rng.choice(_VERBS)
    topic = f"a {_manner(rng, cast, telling)}story".replace("  ", " ")
    parts = rng.random()
    if parts < 0.03 and not telling.with_moral:
        text = f"{verb} {topic}"
    elif parts < 0.10 and telling.with_moral:
        text = f"{verb} {topic} about {rng.choice(cast.plot.topics)}"
    else:
        text = f"{verb} {topic} about {_subject(rng, cast)}{_moral(rng, cast, telling)}"
    return _as_typed(rng, text, is_question=verb.startswith("C"))


def _manner(rng: Random, cast: Cast, telling: Telling) -> str:
    length = {"short": "short ", "middle": "", "long": "long "}[telling.length]
    mood = "sad " if cast.ending == "sad" else rng.choice(("", "", "", "happy "))
    return length + mood + ("bedtime " if telling.at_bedtime else "")


def _subject(rng: Random, cast: Cast) -> str:
    hero, (_, _, his, _) = cast.hero, cast.hero.pronouns()
    forms = (*_HEROES, "{name}", "{name}") if hero.is_child else (*_HEROES, "{name} the {kind}")
    text = rng.choice(forms).format(a_kind=article(hero.kind), a_trait_kind=article(f"{hero.trait} {hero.kind}"), kind=hero.kind, name=hero.name)
    text += f" {cast.place}" if rng.random() < 0.2 else ""
    part = rng.random()
    if part < 0.5:
        return f"{text} and {_thing(rng, cast, his)}"
    if part < 0.85:
        comma = "," if hero.name in text and rng.random() < 0.5 else ""
        return f"{text}{comma} who {rng.choice(cast.plot.asks).format_map(slots_of(cast))}"
    return text


def _thing(rng: Random, cast: Cast, his: str) -> str:
    if cast.plot is LOST and not cast.noun_trait and rng.random() < 0.7:
        return rng.choice((f"a lost {cast.noun}", f"{his} lost {cast.noun}"))
    return rng.choice((article(cast.thing), article(cast.thing), f"{his} {cast.thing}"))


def _moral(rng: Random, cast: Cast, telling: Telling) -> str:
    if not telling.with_moral:
        return ""
    return rng.choice((", with a moral", ", with a moral", f". It should be about {rng.choice(cast.plot.topics)}", ". Add a moral"))


def _as_typed(rng: Random, text: str, *, is_question: bool) -> str:
    text += rng.choice(("?", "?", "")) if is_question else rng.choice((".", ".", ".", "", "!"))
    return text.lower() if rng.random() < 0.1 else text


Answered = tuple[Cast, str, str]
"""The cast that later questions are about, the question and its answer."""
Question = Callable[[Random, Cast], Answered]


def _about(questions: tuple[str, ...], answers: tuple[str, ...]) -> Question:
    """Makes a question whose answer needs nothing but the cast."""

    def ask(rng: Random, cast: Cast) -> Answered:
        return _say(rng, cast, questions, answers)

    return ask


def _say(rng: Random, cast: Cast, questions: tuple[str, ...], answers: tuple[str, ...]) -> Answered:
    slots = slots_of(cast)
    return cast, rng.choice(questions).format_map(slots), rng.choice(answers).format_map(slots)


_NAME = _about(
    ("What was the {kind}'s name?", "What was the name of the {kind}?", "What is the {kind} called?", "What was {his} name?"),
    ("The {kind}'s name was {name}.", "{His} name was {name}."),
)
_HERO = _about(("Who is the story about?", "Who is the hero?", "Who was it about?"), ("The story is about {a_hero}.", "It is about {Hero}."))
_WHERE = _about(("Where did it happen?", "Where does the story take place?", "Where was that?"), ("It happened {place}.",))
_HOME = _about(("Where did {name} live?", "Where did {he} live?", "Where did the {kind} live?"), ("{name} lived {place}.",))
_WHEN = _about(("When did it happen?", "When was that?"), ("It happened {day}.",))
_FRIEND = _about(
    ("Who was the friend?", "Who did {name} meet?", "Who else is in the story?", "What was the name of the friend?"), ("It was {a_friend}.",)
)
_UNSAID = _about(
    ("How old was {name}?", "What did {name} eat for breakfast?", "How tall was {name}?", "What was the name of {his} mother?"),
    ("The story does not say that.",),
)
_THANKS = _about(
    ("Thank you!", "Thanks, that was nice.", "I like it.", "What a nice story!"),
    ("You are welcome! I am glad that you like it.", "Thank you! I like {name} too."),
)


def _why(rng: Random, cast: Cast) -> Answered:
    asks = ("Why was {he} {mood}?", "Why was {name} {mood}?", "Why was the {kind} {mood}?", "Why was {he} sad?")
    return _say(rng, cast, asks, ("{name} was {mood} because " + cast.plot.because + ".",))


def _helper(rng: Random, cast: Cast) -> Answered:
    return _say(rng, cast, ("Who helped {name}?", "Who helped {him}?", "Did somebody help {him}?"), (cast.plot.helped,))


def _what(rng: Random, cast: Cast) -> Answered:
    return _say(rng, cast, ("What happened?", "What happened to {name}?", "What did {name} do?"), (cast.plot.happened,))


def _end(rng: Random, cast: Cast) -> Answered:
    asks = ("How did it end?", "What happened in the end?", "Did it end well?", "Was it a happy ending?")
    verdict = "It ended well." if cast.ending == "happy" else "It did not end well."
    return _say(rng, cast, asks, (f"{verdict} {_summary_of(cast)}",))


def _summary(rng: Random, cast: Cast) -> Answered:
    asks = ("Tell it in one sentence.", "Sum it up in one sentence.", "Can you summarize the story?", "Summarize it.", "What is the story about?")
    return _say(rng, cast, asks, (_summary_of(cast),))


def _summary_of(cast: Cast) -> str:
    return cast.plot.happy_summary if cast.ending == "happy" else cast.plot.sad_summary


def _lesson(rng: Random, cast: Cast) -> Answered:
    return _say(rng, cast, ("What is the moral?", "What can we learn from it?", "What is the moral of the story?"), cast.plot.morals)


def _title(rng: Random, cast: Cast) -> Answered:
    asks = ("Give it a title.", "What is a good title?", "Can you give the story a title?", "Give the story a name.")
    return _say(rng, cast, asks, cast.plot.titles)


def _colour(rng: Random, cast: Cast) -> Answered:
    asks = ("What colour was the {noun}?", "What color was the {noun}?", "Which colour did the {noun} have?")
    known = cast.noun_trait in words.COLOURS
    answer = f"The {cast.noun} was {cast.noun_trait}." if known else f"The story does not say what colour the {cast.noun} was."
    return cast, rng.choice(asks).format_map(slots_of(cast)), answer


def _again(rng: Random, cast: Cast) -> Answered:
    ending: Ending = "happy" if rng.random() < 0.6 else "sad"
    asks = ("Tell it again, but with a {} ending.", "Now tell it with a {} ending.", "Can you give it a {} ending?", "Tell it again with a {} ending")
    cast = replace(cast, ending=ending)
    return cast, rng.choice(asks).format(ending), tell(rng, cast, Telling("short"))


def _shorter(rng: Random, cast: Cast) -> Answered:
    asks = ("Tell it again, but shorter.", "Make it shorter.", "Can you make it shorter?", "Tell the story again.")
    return cast, rng.choice(asks), tell(rng, cast, Telling("short"))


def _another(rng: Random, cast: Cast) -> Answered:
    cast, telling = draw_cast(rng, split_of(cast)), Telling("short")
    asks = ("Tell me another story.", "Another one, please.", ask_for_story(rng, cast, telling), ask_for_story(rng, cast, telling))
    return cast, rng.choice(asks), tell(rng, cast, telling)


QUESTIONS: tuple[Question, ...] = (
    *(_NAME, _NAME, _HERO, _WHERE, _HOME, _WHEN, _why, _why, _FRIEND, _helper, _what, _end, _summary, _lesson, _title, _title),
    *(_colour, _UNSAID, _again, _again, _shorter, _another, _THANKS),
)
"""What a listener may ask, the common ones twice."""
