"""Charts as SVG without scripts: small, sharp in print, and in the colors of the surrounding page.

Each chart is drawn twice, for wide pages and for phones, because the text in a picture shrinks with the picture. The
page's style sheet shows the svg of the class `wide` or `narrow`, and sets the colors of the classes `line`, `area`,
`dot`, `odd`, `bar` and `tick` (text).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

HEIGHT = 200
WIDTHS = {"wide": (720, 6), "narrow": (320, 3)}  # width, approximate number of steps between ticks
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 34  # margins


@dataclass(frozen=True)
class Axis:
    """A scale from values to positions in the picture, with ticks."""

    low: float
    high: float
    begin: float
    end: float
    steps: int = 6

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        return self.begin + (value - self.low) / (self.high - self.low or 1) * (self.end - self.begin)

    @property
    def step(self) -> float:
        """The distance between two ticks."""
        return _round_step((self.high - self.low) / self.steps)

    def text(self, value: float) -> str:
        """Return the label of a tick, with enough digits to distinguish it from the next."""
        if max(abs(self.low), abs(self.high)) >= 1e9:
            return f"{value:.3g}"
        return f"{value:,.{max(0, -math.floor(math.log10(self.step)))}f}"

    @property
    def ticks(self) -> list[float]:
        """The values of the ticks: about three to seven round numbers."""
        step = self.step
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(smallest: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20 ... (and of 0.5, 0.2 ...) that is not below a number."""
    if smallest <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(smallest))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= smallest * (1 - 1e-9))


@dataclass(frozen=True)
class _Canvas:
    """The frame of a chart: its axes, and its width by kind, "wide" or "narrow"."""

    kind: str
    across: Axis
    up: Axis

    @property
    def right(self) -> int:
        return WIDTHS[self.kind][0] - _RIGHT

    def picture(self, marks: str, x_label: str, description: str) -> str:
        """Return the svg: marks with ticks, a grid and a label."""
        across, up = self.across, self.up
        lines = "".join(
            f'<line class="grid" x1="{_LEFT}" x2="{self.right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 8}" y="{up(tick) + 4:.1f}" text-anchor="end">{up.text(tick)}</text>'
            for tick in up.ticks
        )
        below = "".join(
            f'<text class="tick" x="{across(tick):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
            f"{across.text(tick)}</text>"
            for tick in across.ticks
        )
        label = f'<text class="tick" x="{self.right}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text>'
        return (
            f'<svg class="{self.kind}" viewBox="0 0 {self.right + _RIGHT} {HEIGHT}" role="img" '
            f'aria-label="{escape(description)}">{lines}{below}{label}{marks}</svg>'
        )


Draw = Callable[[Axis, Axis], str]


def _charts(x: Sequence[float], y_high: float, draw: Draw, x_label: str, description: str) -> Markup:
    """Return the chart in each width. `draw` returns the marks for given axes."""
    pictures = []
    for kind, (width, steps) in WIDTHS.items():
        across = Axis(min(x, default=0.0), max(x, default=1.0), _LEFT, width - _RIGHT, steps)
        up = Axis(0.0, y_high or 1.0, HEIGHT - _BOTTOM, _TOP)
        pictures.append(_Canvas(kind, across, up).picture(draw(across, up), x_label, description))
    return Markup("".join(pictures))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.3g}"


def area(points: Sequence[tuple[float, float]], *, x_label: str, description: str) -> Markup:
    """Return a chart of a curve over (x, y), filled down to zero."""

    def draw(across: Axis, up: Axis) -> str:
        if not points:
            return ""
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        corners = f"{across(points[-1][0]):.1f},{up(0):.1f} {across(points[0][0]):.1f},{up(0):.1f}"
        return f'<polygon class="area" points="{path} {corners}"/><polyline class="line" points="{path}"/>'

    return _charts([x for x, _ in points], _top([y for _, y in points]), draw, x_label, description)


def dots(points: Sequence[tuple[float, float, str, bool]], *, x_label: str, description: str) -> Markup:
    """Return a chart with a dot for each (x, y, title, whether it is highlighted)."""

    def draw(across: Axis, up: Axis) -> str:
        return "".join(
            f'<circle class="{"odd" if odd else "dot"}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="{4 if odd else 2.5}">'
            f"<title>{escape(title)}</title></circle>"
            for x, y, title, odd in sorted(points, key=lambda point: point[3])
        )

    return _charts([x for x, *_ in points], _top([y for _, y, *_ in points]), draw, x_label, description)


def histogram(edges: Sequence[float], counts: Sequence[int], *, x_label: str, description: str) -> Markup:
    """Return a chart with a bar for each count, between two edges."""

    def draw(across: Axis, up: Axis) -> str:
        return "".join(
            f'<rect class="bar" x="{across(low) + 0.5:.1f}" y="{up(count):.1f}" '
            f'width="{max(1, across(high) - across(low) - 1):.1f}" height="{up(0) - up(count):.1f}">'
            f"<title>{_number(low)} to {_number(high)}: {count:,}</title></rect>"
            for (low, high), count in zip(pairwise(edges), counts, strict=True)
        )

    return _charts(edges, _top(counts), draw, x_label, description)


def _top(values: Sequence[float]) -> float:
    """Return the upper end of the axis, a little above the largest value."""
    return max(values, default=0) * 1.08
