"""The words that stories are made of: names, kinds, things, places and small pieces of scenery."""

from typing import Final

GIRL_NAMES: Final = (
    *("Mia", "Lily", "Anna", "Rosa", "Emma", "Nora", "Lucy", "Ella", "Zoe", "Ruby", "Clara", "Ivy", "Hana", "Maya", "Leila", "Tess"),
    *("Olive", "Daisy", "Penny", "Willow", "Hazel", "Poppy", "Luna", "Stella", "Bella", "Molly", "Sara", "Nina", "Amara", "Freya", "Alice", "June"),
)
BOY_NAMES: Final = (
    *("Ben", "Tom", "Max", "Sam", "Leo", "Jack", "Finn", "Oscar", "Theo", "Milo", "Noah", "Hugo", "Omar", "Ravi", "Kenji", "Luis"),
    *("Pip", "Toby", "Rusty", "Bruno", "Otto", "Felix", "Jasper", "Barney", "Oliver", "Henry", "Charlie", "Arlo", "Emil", "Ivan", "Peter", "Gus"),
)
NAME_STARTS: Final = (
    *("Ba", "Bri", "Do", "El", "Fa", "Gri", "Jo", "Ka", "Lo", "Mar", "Ne"),
    *("Or", "Pe", "Qui", "Ro", "Sha", "Ti", "Ul", "Vi", "Wen", "Yo", "Za"),
)
NAME_MIDDLES: Final = ("", "la", "ri", "no", "mi", "den", "ru", "ve", "sto", "ki")
GIRL_ENDS: Final = ("na", "lia", "ra", "tta", "ssa", "ya", "belle", "wen")
BOY_ENDS: Final = ("do", "rik", "n", "bert", "mo", "vin", "ton", "ko")

ANIMALS: Final = (
    *("fox", "rabbit", "bear", "mouse", "owl", "frog", "cat", "dog", "duck", "hen", "pig", "goat", "horse", "donkey", "sheep", "lamb"),
    *("wolf", "deer", "squirrel", "hedgehog", "badger", "otter", "beaver", "turtle", "snail", "bee", "ant", "crow", "robin", "sparrow"),
    *("lion", "tiger", "elephant", "monkey", "giraffe", "penguin", "whale", "seal", "crab", "dragon", "unicorn", "robot", "giant", "wizard"),
    *("knight", "pirate", "sailor", "farmer", "king", "queen", "prince", "princess", "witch", "fairy"),
)
FEMALE_KINDS: Final = frozenset({"hen", "queen", "princess", "witch"})
MALE_KINDS: Final = frozenset({"wizard", "king", "prince", "giant"})
CHILDREN: Final = {True: "girl", False: "boy"}  # by "is female"

TRAITS: Final = (
    *("brave", "shy", "kind", "curious", "clever", "lazy", "gentle", "cheerful", "quiet", "proud", "lonely", "hungry", "sleepy", "busy"),
    *("little", "young", "old", "tiny", "big", "small", "careful", "friendly", "silly", "wise"),
)

THINGS: Final = (
    *("lantern", "kite", "drum", "ball", "boat", "key", "bell", "map", "book", "hat", "scarf", "blanket", "basket", "cup", "whistle"),
    *("flute", "shell", "stone", "feather", "ribbon", "umbrella", "wagon", "puzzle", "mirror", "button", "ring", "crown", "box", "jar"),
    *("spoon", "pot", "teapot", "clock", "compass", "candle", "lamp", "rope", "ladder", "bucket", "shovel", "brush", "pencil", "letter"),
    *("picture", "doll", "teddy bear", "train", "car", "bicycle", "balloon", "top", "violin", "guitar", "trumpet", "coat", "boot", "glove"),
    *("pillow", "flower", "seed", "apple", "cake", "pumpkin", "acorn", "egg", "star", "coin", "medal", "flag", "sword", "shield", "telescope"),
)
COLOURS: Final = ("red", "blue", "green", "yellow", "white", "black", "pink", "orange", "purple", "brown", "golden", "silver")
LOOKS: Final = ("old", "little", "shiny", "magic", "wooden", "tiny", "beautiful", "strange", "special", "round", "new", "pretty")

PLACES: Final = (
    *("in the forest", "by the river", "near the sea", "on a small farm", "in a little village", "on a green hill", "in the meadow"),
    *("by a quiet lake", "in a big town", "in the mountains", "in a lovely garden", "on an island", "in a deep valley", "in the desert"),
    *("in an old castle", "in the snow", "in the jungle", "by the harbour", "at the edge of the woods", "in a tall tower"),
)
SPOTS: Final = (
    *("under the old bridge", "behind a big rock", "in the tall grass", "inside a hollow log", "under a pile of leaves", "beside the well"),
    *("near the mill", "at the foot of an oak tree", "behind the red barn", "on top of a stone wall", "under the wooden steps", "by the gate"),
    *("next to the pond", "behind a thick bush", "in a dark corner", "at the end of the path"),
)
DAYS: Final = (
    *("one day", "one morning", "one sunny morning", "one windy day", "one cold day", "one rainy day", "one evening", "one bright day"),
    *("one quiet afternoon", "early one morning", "one summer day", "one autumn day", "one winter morning", "one spring day"),
)
FEARS: Final = ("the dark", "thunder", "deep water", "high places", "strange noises", "the big wind", "shadows", "being alone")
FOODS: Final = ("warm bread", "hot soup", "sweet apples", "honey cakes", "berry pie", "fresh milk and bread", "a bowl of porridge")


def article(words: str) -> str:
    """Put the indefinite article that fits before `words`."""
    takes_an = words[0] in "aeiou" and not words.startswith("uni")
    return f"{'an' if takes_an else 'a'} {words}"
