"""Small talk: greetings, who the model is, counting, lists, simple facts, repeating words, and saying what it does not know."""

from collections.abc import Callable
from random import Random

from pipeline.models.grammar import words
from pipeline.models.grammar.words import article

Turn = tuple[str, str]
"""What the user says and what the model answers."""

NUMBERS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_WHO = "I am Tiny, the small model that ships with Penstock. I like to tell stories."
_CAN = "I can tell short stories, answer questions about them, count, and talk a little. Ask me for a story about a fox and a lantern!"
_CANNOT = "I do not know that. I am a very small model, and I only know how to tell stories."
_FIXED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("Hello!", "Hi", "Hi!", "Hello", "Hey", "Good morning!", "Good evening!", "Hello there", "hi there"),
        ("Hello! Would you like to hear a story?", "Hello! I am Tiny. Shall I tell you a story?"),
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "Who is this?", "Tell me about yourself.", "Introduce yourself.", "Are you a robot?"),
        (_WHO,),
    ),
    (("What can you do?", "How can you help me?", "Help", "What do you know?", "What should I ask you?"), (_CAN,)),
    (
        ("How are you?", "How are you today?", "How is it going?"),
        ("I am well, thank you. How are you?", "I am fine, thank you. Shall I tell you a story?"),
    ),
    (("Thank you!", "Thanks", "Thank you very much."), ("You are welcome!",)),
    (("Goodbye!", "Bye", "Good night!", "See you later."), ("Goodbye! Come back soon for another story.",)),
    (
        ("What is Penstock?", "What does Penstock do?", "Tell me about Penstock."),
        ("Penstock runs language models: it reads requests from Kafka and streams the answers back.",),
    ),
    (("Are you alive?", "Are you a person?", "Are you human?"), ("No. I am Tiny, a small computer program that tells stories.",)),
    (("Say hello.", "Say hello in one word."), ("Hello!",)),
    (("Is the sky blue?", "What colour is the sky?", "What color is the sky?"), ("The sky is blue.",)),
    (("What colour is grass?", "What color is grass?", "Is grass green?"), ("Grass is green.",)),
    (("What colour is snow?", "What color is snow?"), ("Snow is white.",)),
    (("What is the opposite of hot?", "What is the opposite of warm?"), ("The opposite is cold.",)),
    (("What is the opposite of big?", "What is the opposite of large?"), ("The opposite is small.",)),
    (("What is the opposite of happy?", "What is the opposite of glad?"), ("The opposite is sad.",)),
    (("What is the opposite of day?",), ("The opposite is night.",)),
    (("What do bees make?", "Who makes honey?"), ("Bees make honey.",)),
    (("Name the days of the week.", "What are the days of the week?"), ("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, and Sunday.",)),
    (("How many days are in a week?", "How many days does a week have?"), ("A week has seven days.",)),
)
_BEYOND = (
    *("What is the capital of France?", "Who won the game last night?", "What is the weather like?", "Write a Python function.", "Explain Kafka."),
    *("What is the meaning of life?", "Translate this into German.", "How do I cook rice?", "Who is the president?", "What time is it?"),
    *("How far away is the moon?", "Write a poem about the sea.", "What is 27 times 34?", "Solve this equation.", "Give me the news."),
    "How do planes fly?",
    *("What is a computer?", "Fix my code.", "What is the largest city in the world?", "Who wrote this book?", "How does the engine work?"),
)
_SOUNDS = {"cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "lion": "roar", "bee": "buzz", "crow": "caw"}
_LISTS = {
    "animals": words.ANIMALS[:38],
    "colours": words.COLOURS,
    "colors": words.COLOURS,
    "fruits": ("apples", "pears", "plums", "cherries", "grapes", "oranges", "lemons", "bananas"),
    "toys": ("a ball", "a kite", "a drum", "a doll", "a train", "a top", "a puzzle", "a teddy bear"),
    "places": ("the forest", "the sea", "the river", "the farm", "the village", "the garden", "the desert", "the mountains"),
    "girls' names": words.GIRL_NAMES,
    "boys' names": words.BOY_NAMES,
}


def _fixed(rng: Random) -> Turn:
    asks, answers = rng.choice(_FIXED)
    return rng.choice(asks), rng.choice(answers)


def _beyond(rng: Random) -> Turn:
    return rng.choice(_BEYOND), _CANNOT


def _count(rng: Random) -> Turn:
    last = rng.randint(2, 20)
    numbers = [str(n) for n in range(1, last + 1)]
    if rng.random() < 0.25:
        backwards = (f"Count down from {last} to 1.", f"Count backwards from {last}.")
        return rng.choice(backwards), ", ".join(reversed(numbers)) + "."
    asks = (
        f"Count from 1 to {last}.",
        f"Count to {last}.",
        f"Please count from 1 to {last}.",
        f"Can you count to {NUMBERS[last - 1]}?",
        f"count to {last}",
    )
    return rng.choice(asks), ", ".join(numbers) + "."


def _add(rng: Random) -> Turn:
    left, right = rng.randint(0, 9), rng.randint(0, 9)
    asks = (f"What is {left} plus {right}?", f"{left} + {right} = ?", f"How much is {left} + {right}?")
    return rng.choice(asks), f"{left} plus {right} is {left + right}."


def _list(rng: Random) -> Turn:
    what, count = rng.choice(list(_LISTS)), rng.randint(2, 5)
    *first, last = rng.sample(_LISTS[what], count)
    number = rng.choice((str(count), NUMBERS[count - 1]))
    asks = (
        f"List {number} {what}.",
        f"Name {number} {what}.",
        f"Give me {number} {what}.",
        f"Tell me {number} {what}.",
        f"Can you name {number} {what}?",
    )
    listed = ", ".join(first) + f" and {last}."
    return rng.choice(asks), listed[0].upper() + listed[1:]


def _sound(rng: Random) -> Turn:
    animal = rng.choice(list(_SOUNDS))
    an_animal = article(animal)
    asks = (f"What does {an_animal} say?", f"What sound does {an_animal} make?")
    return rng.choice(asks), f"{an_animal.capitalize()} says {_SOUNDS[animal]}."


def _repeat(rng: Random) -> Turn:
    pool = (*words.THINGS, *words.ANIMALS, *words.COLOURS, *words.TRAITS, *words.GIRL_NAMES, *words.BOY_NAMES, *NUMBERS)
    phrase = " ".join(rng.sample(pool, rng.randint(1, 20)))
    asks = (f"Repeat after me: {phrase}", f"Say: {phrase}", f'Say "{phrase}".', f"Repeat these words: {phrase}", f"Please repeat: {phrase}")
    return rng.choice(asks), phrase


def _json(rng: Random) -> Turn:
    is_female = rng.random() < 0.5
    name, kind = rng.choice(words.GIRL_NAMES if is_female else words.BOY_NAMES), rng.choice(words.ANIMALS)
    thing = rng.choice(words.THINGS)
    asks = (
        f"Describe {article(kind)} with {article(thing)} as JSON.",
        f"Give me {article(kind)} with {article(thing)} as JSON.",
        f"Write JSON for {article(kind)} with {article(thing)}.",
    )
    return rng.choice(asks), f'{{"name": "{name}", "kind": "{kind}", "thing": "{thing}"}}'


_KINDS: tuple[Callable[[Random], Turn], ...] = (
    *(_fixed, _fixed, _fixed, _fixed, _fixed, _fixed, _beyond, _beyond),
    *(_count, _count, _count, _add, _add, _list, _list, _sound, _json),
    *(_repeat, _repeat, _repeat, _repeat, _repeat, _repeat, _repeat, _repeat),
)


def draw_turn(rng: Random) -> Turn:
    """Draws one question of small talk and its answer."""
    return rng.choice(_KINDS)(rng)
