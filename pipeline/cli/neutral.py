"""Makes text that somebody else wrote harmless to a terminal. Pure."""

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def neutral(text: str) -> str:
    """Replaces every control character but newline and tab, so that no escape sequence reaches the terminal.

    C0 controls become their pictures (ESC shows as U+241B), DEL its own, C1 controls the replacement character. Every character
    is judged alone, so a sequence that is split over several pieces of a stream is harmless as well.
    """
    return _CONTROLS.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else _REPLACEMENT
