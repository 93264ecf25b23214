"""What the demo asks the small model for."""

from itertools import cycle, islice

PROMPTS = (
    "Tell me a story about a shy fox named Finn who lost his kite.",
    "Write a short bedtime story about a sleepy bear.",
    "Tell me a long story about a brave girl named Mia and a lantern.",
    "Make up a story about a lonely robot who finds a friend.",
    "Can you tell me a story about a proud king and a golden crown?",
    "Please tell me a story about a curious otter by the river.",
    "I want to hear a story about a little boy named Leo and his lost drum.",
    "Write a story about a clever mouse, with a moral.",
    "Tell me a sad story about an old sailor and his boat.",
    "Give me a short story about friendship.",
    "Tell me a story about a careful owl who is afraid of the dark.",
    "Could you tell me a story about a princess and a strange key?",
)


def pick(count: int) -> list[str]:
    """So many of them, from the start again where there are not enough."""
    return list(islice(cycle(PROMPTS), count))
