"""The grammar: the same text for the same seed, and a part of the stories kept out of training."""

import re
from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from pipeline.models.grammar import Chat, Plain, documents, is_held_out, stories, story_requests
from pipeline.models.grammar.cast import draw_cast
from pipeline.models.grammar.plots import PLOTS
from pipeline.models.grammar.stories import Telling, tell
from pipeline.models.grammar.words import ANIMALS, THINGS


def texts_of(document):
    """Gives the story or the contents of the messages."""
    return [document.text] if isinstance(document, Plain) else [content for _, content in document.messages]


def pairs_of(text):
    """Finds the heroes ("a shy fox named ...") and the things that a text mentions, as pairs."""
    heroes = set(re.findall(rf"\b({'|'.join((*ANIMALS, 'girl', 'boy'))}) named", text.split("\n\n")[0].split(". ")[0]))
    things = set(re.findall(rf"\b({'|'.join(THINGS)})\b", text))
    return {(hero, thing) for hero in heroes for thing in things}


def test_the_same_seed_gives_the_same_documents():
    """Two streams with one seed are equal; another seed gives another stream."""
    first, again, other = (list(islice(documents(seed, "train"), 200)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_casts_belong_to_the_split_that_was_asked_for():
    """Training casts never pair a held-out hero and thing, and held-out casts always do."""
    rng = Random(1)
    for _ in range(2000):
        train, held_out = draw_cast(rng, "train"), draw_cast(rng, "held_out")
        assert not is_held_out(train.hero.kind, train.noun)
        assert is_held_out(held_out.hero.kind, held_out.noun)


def test_about_a_tenth_of_the_pairs_is_held_out():
    """The split by hash is neither empty nor large."""
    held_out = [is_held_out(kind, noun) for kind in ANIMALS for noun in THINGS]
    assert 0.07 < sum(held_out) / len(held_out) < 0.13


def test_no_training_story_opens_with_a_held_out_pair():
    """Read back from the text, the splits are disjoint, requests for another story included."""
    trained, kept = set(), set()
    for document in islice(stories(3, "train"), 3000):
        told = [text for text in texts_of(document) if " named " in text and len(text) > 200]
        trained |= {pair for text in told for pair in pairs_of(text) if text.count(pair[1]) > 2}
    for _, cast in islice(story_requests(3, "held_out"), 1000):
        kept.add((cast.hero.kind, cast.noun))
    assert len(trained) > 1000
    assert len(kept) > 200
    assert not trained & kept


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.titles[0])
@pytest.mark.parametrize("ending", ["happy", "sad"])
def test_every_plot_fills_its_slots(plot, ending):
    """In every telling the hero's name and the thing occur and no slot is left open."""
    rng = Random(5)
    for _ in range(50):
        cast = replace(draw_cast(rng, "train"), plot=plot, ending=ending)
        for telling in (Telling("short"), Telling("long", with_moral=True, at_bedtime=True)):
            text = tell(rng, cast, telling)
            assert cast.hero.name in text
            assert cast.noun in text
            assert not re.search(r"[{}]|  | ,|\.\.", text)


def test_a_long_telling_says_more_than_a_short_one():
    """Over many casts, long stories have at least a fifth more sentences than short ones, and only they have paragraphs."""
    rng = Random(2)
    casts = [draw_cast(rng, "train") for _ in range(100)]
    long, short = ([tell(rng, cast, Telling(length)) for cast in casts] for length in ("long", "short"))
    assert len(re.findall(r"[.!?]", "".join(long))) > 1.2 * len(re.findall(r"[.!?]", "".join(short)))
    assert all("\n\n" in text for text in long)
    assert not any("\n" in text for text in short)


def test_chats_alternate_and_end_with_the_model():
    """After an optional system message, user and assistant take turns."""
    for document in islice(documents(4, "train"), 2000):
        if isinstance(document, Chat):
            roles = [role for role, _ in document.messages if role != "system"]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert roles
