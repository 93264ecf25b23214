"""How much a step may compute: less after a shortage of memory, and in time all of it again."""

RECOVERY_STEPS = 64
"""Steps without a shortage after which the budget doubles."""


class Budget:
    """Tokens and sequences per step, halved together.

    There are never more sequences than tokens, so that every running sequence's decode fits in every step.
    """

    def __init__(self, *, tokens: int, sequences: int):
        self._full_tokens = tokens
        self._full_sequences = min(sequences, tokens)
        self._halvings = 0
        self._steps = 0

    @property
    def tokens(self) -> int:
        """Tokens per step."""
        return max(self._full_tokens >> self._halvings, 1)

    @property
    def sequences(self) -> int:
        """Running sequences."""
        return max(self._full_sequences >> self._halvings, 1)

    def halve(self) -> None:
        """Answers a shortage of memory."""
        self._halvings = min(self._halvings + 1, self._full_tokens.bit_length() - 1)
        self._steps = 0

    def pass_step(self) -> None:
        """Counts a step towards recovery."""
        if self._halvings:
            self._steps += 1
            if self._steps > RECOVERY_STEPS:
                self._halvings -= 1
                self._steps = 0
