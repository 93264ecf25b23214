"""A small chart: points and lines over two axes, as SVG text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 56
COLOURS = ("#1f6feb", "#9a6700", "#cf222e", "#1a7f37", "#8250df", "#57606a", "#bf3989")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Named points, joined by a line where `is_line`."""

    name: str
    points: Sequence[tuple[float, float]]
    is_line: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is drawn along an axis, from `low` to `high`; in decades where `is_log`."""

    label: str
    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1; what is beyond the axis lies at its end."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Values that are written beside it."""
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [value for decade in decades for value in (10.0**decade, 2 * 10.0**decade, 5 * 10.0**decade) if self.low <= value <= self.high]
        return [self.low + (self.high - self.low) * part / 5 for part in range(6)]


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Draws it."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x.label)}</text>',
        f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2})">{escape(y.label)}</text>',
    ]
    foot = HEIGHT - BOTTOM
    for tick in x.ticks():
        at, _ = _at(x, y, tick, y.low)
        parts.append(f'<path d="M{at} {TOP}V{foot}" stroke="#d0d7de"/><text x="{at}" y="{foot + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks():
        _, at = _at(x, y, x.low, tick)
        line = f"M{LEFT} {at}H{WIDTH - RIGHT}"
        parts.append(f'<path d="{line}" stroke="#d0d7de"/><text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{tick:g}</text>')
    for number, one in enumerate(series):
        parts += _series(one, x, y, COLOURS[number % len(COLOURS)], number)
    return "\n".join([*parts, "</svg>", ""])


def _series(one: Series, x: Axis, y: Axis, colour: str, number: int) -> list[str]:
    places = [_at(x, y, *point) for point in one.points]
    parts = [f'<circle cx="{a}" cy="{b}" r="{4 if one.is_line else 3}" fill="{colour}"/>' for a, b in places]
    if one.is_line and len(places) > 1:
        joined = " ".join(f"{a},{b}" for a, b in places)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
    at = HEIGHT - BOTTOM - 12 - 16 * number
    parts.append(f'<circle cx="{WIDTH - 232}" cy="{at - 4}" r="4" fill="{colour}"/><text x="{WIDTH - 222}" y="{at}">{escape(one.name)}</text>')
    return parts


def _at(x: Axis, y: Axis, along: float, up: float) -> tuple[float, float]:
    across = LEFT + x.place(along) * (WIDTH - LEFT - RIGHT)
    return round(across, 1), round(HEIGHT - BOTTOM - y.place(up) * (HEIGHT - TOP - BOTTOM), 1)
