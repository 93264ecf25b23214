"""Stop strings across token borders: what may be shown now, and where the text ends."""

from collections.abc import Sequence


class StopStrings:
    """Watches one choice's text for the first stop string.

    Text goes in as it is decoded and comes out as far as it can no longer be part of a stop string: the longest suffix
    that begins one is held back. One Knuth-Morris-Pratt automaton per stop string, so the work per character is constant,
    also for stop strings made to hurt.
    """

    __slots__ = ("_fallbacks", "_held", "_matched", "_stops", "matched")

    def __init__(self, stops: Sequence[str]):
        self._stops = stops
        self._fallbacks = [_fallbacks(stop) for stop in stops]
        self._matched = [0] * len(stops)  # per stop string: how many of its characters the text ends with
        self._held = ""
        self.matched = False

    def feed(self, text: str) -> str:
        """Takes decoded text and returns what may be shown; sets `matched` where a stop string is complete and ends the text before it."""
        if not self._stops or self.matched:
            return "" if self.matched else text
        pending = self._held + text
        for position, character in enumerate(text, len(self._held) + 1):
            if stop_characters := self._advance(character):
                self.matched, self._held = True, ""
                return pending[: position - stop_characters]
        shown = len(pending) - max(self._matched)
        self._held = pending[shown:]
        return pending[:shown]

    def flush(self) -> str:
        """Gives up what was held back: no more text comes."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> int:
        """Moves every automaton; returns the length of the longest stop string that is complete now, or 0."""
        complete = 0
        for i, (stop, fallbacks) in enumerate(zip(self._stops, self._fallbacks, strict=True)):
            matched = self._matched[i]
            while matched and stop[matched] != character:
                matched = fallbacks[matched - 1]
            matched += stop[matched] == character
            self._matched[i] = matched
            if matched == len(stop):
                complete = max(complete, matched)
        return complete


def _fallbacks(stop: str) -> list[int]:
    """For each prefix of `stop`: the length of its longest proper suffix that is a prefix as well."""
    fallbacks = [0] * len(stop)
    matched = 0
    for i in range(1, len(stop)):
        while matched and stop[matched] != stop[i]:
            matched = fallbacks[matched - 1]
        matched += stop[matched] == stop[i]
        fallbacks[i] = matched
    return fallbacks
