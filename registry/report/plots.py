"""Plots as SVG: lines with bands, steps, areas and dots over one frame, bars, a histogram, a forest.

Owns the geometry and the thinning. Positions across are shares of the width, so that letters keep their
size on any screen; colours are classes, so that the style sheet decides. Beyond some hundred points a line
is drawn as the mean of each stretch, over the band from its least to its greatest value, so that no spike is
lost. What is not finite is a gap, and is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from registry.report.parts import html, joined, note, part

_STRETCHES = 300
_SIZE = 1_000  # the inner drawing's own units, both ways
_TOP, _DEPTH = 10, 150
PLOT_HEIGHT = _TOP + _DEPTH + 22
"""Pixels of a plot without its title and legend."""
_MOST_DOTS, _FEW = 40, 12
_ROOM = 15.0  # percent of the width that a figure at the axis needs, on a narrow screen

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One row of (x, y), ascending in x; y may be anything but finite.

    `steps` holds each value until the next and the last to the end, `area` is that, filled. `colour` is a
    number of the palette, else its place in the plot. `intervals` are (low, high) of each point; `until` is
    where steps end, else at the axis' end.
    """

    name: str
    points: Points
    kind: Literal["line", "steps", "area", "dots"] = "line"
    colour: int | None = None
    intervals: Points = ()
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over one pair of axes. `unit` says what the axes are.

    `cuts` are marked with their words, `events` with a line that tells when it is pointed at, `limits` are
    values; what lies before `shaded_until` is grey. Without a span, an axis spans what is drawn.
    """

    title: str
    curves: Sequence[Curve]
    cuts: Sequence[tuple[float, str]] = ()
    events: Sequence[tuple[float, str]] = ()
    limits: Sequence[tuple[float, str]] = ()
    shaded_until: float = 0.0
    unit: str = ""
    across: tuple[float, float] | None = None
    up: tuple[float, float] | None = None
    remarks: Sequence[str] = ()

    @property
    def drawn(self) -> list[tuple[int, Curve]]:
        """Return the curves that have a finite value, each with its colour."""
        coloured = (
            (place if one.colour is None else one.colour, one) for place, one in enumerate(self.curves)
        )
        return [(colour, one) for colour, one in coloured if any(math.isfinite(y) for _, y in one.points)]

    @property
    def legend(self) -> list[tuple[int, str]]:
        """Return colour and name of the curves that are drawn; nothing where there is no choice."""
        named = [(colour, one.name) for colour, one in self.drawn if one.name]
        return named if len(self.drawn) > 1 else []

    @property
    def said(self) -> list[str]:
        """Return what stands under the plot."""
        return [*self.remarks, *(text for one in self.curves for text in _missing(one))]

    def figure(self) -> Markup:
        """Return the plot with its title and legend as a part of a page; nothing where nothing is finite."""
        if not self.drawn:
            return Markup()
        told = "; ".join(_told(one) for _, one in self.drawn)
        picture = _plot(PLOT_HEIGHT, f"{self.title}: {told}", self.inner())
        return part("figure", self.title, self.unit, picture, self.legend, self.said)

    def inner(self) -> Iterator[Markup]:
        """Yield what lies on the frame; the width is the picture's around it."""
        frame = _Frame.around(self)
        if self.shaded_until > frame.first:
            width, tip = f"{frame.right(self.shaded_until):.2f}%", "warm-up, not measured"
            yield html(
                '<rect class="shade" y="{}" width="{}" height="{}"><title>{}</title></rect>',
                _TOP, width, _DEPTH, tip,
            )  # fmt: skip
        yield from _axes(frame)
        for value, words in self.limits:
            if frame.low <= value <= frame.high:
                y = frame.y(value)
                yield _across("limit", y)
                yield _text(4, y - 3, words, "start", "label limit")
        for x, words in self.events:
            yield _upright(frame, x, f"{words} at {x:.1f}")
        for place, (x, words) in enumerate(sorted(self.cuts)):
            yield _upright(frame, x)
            anchor = "end" if frame.right(x) > 50 else "start"
            yield _text(f"{frame.right(x):.2f}%", _TOP - 1 + 11 * (place % 3), words, anchor)
        for place, (colour, curve) in enumerate(self.drawn):
            body = joined(_curve(frame, curve, few=_MOST_DOTS if place else _FEW))
            yield html('<g class="c{}">{}</g>', colour, body)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Which values the axes span, and where one lies."""

    first: float
    last: float
    low: float
    high: float
    whole: bool  # marks of the axis across are whole numbers

    @classmethod
    def around(cls, plot: Plot) -> _Frame:
        points = [point for _, one in plot.drawn for point in _finite(one.points)]
        across = plot.across or _ends([*(x for x, _ in points), *(x for x, _ in plot.cuts)])
        bounds = [y for _, one in plot.drawn for interval in one.intervals for y in interval]
        low, high = _ends([*(y for _, y in points), *bounds])
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        # A quantity that is never below 0 gets no axis below 0.
        fitted = (0.0 if 0 <= low < room else low - room, high + room)
        return cls(*across, *(plot.up or fitted), whole=plot.across is None)

    def right(self, x: float) -> float:
        """Return where x lies from the left, in percent."""
        return (
            100 * (min(x, self.last) - self.first) / (self.last - self.first)
            if self.last > self.first
            else 50
        )

    def y(self, value: float) -> float:
        """Return where a value lies from the top, in pixels."""
        return _TOP + _DEPTH * (self.high - min(value, self.high)) / (self.high - self.low)

    def place(self, x: float, y: float) -> str:
        """Return a place in the inner drawing's units."""
        return f"{self.right(x) / 100 * _SIZE:.0f},{(self.y(y) - _TOP) / _DEPTH * _SIZE:.0f}"


def stretches(points: Points, most: int = _STRETCHES) -> list[tuple[float, float, float, float]]:
    """Return at most `most` stretches of neighbouring points: middle x, mean, least, greatest y."""
    count = min(most, len(points))
    parts = (
        points[place * len(points) // count : (place + 1) * len(points) // count] for place in range(count)
    )
    found = []
    for one in parts:
        values = [y for _, y in one]
        mean = math.fsum(values) / len(values)
        found.append(((one[0][0] + one[-1][0]) / 2, mean, min(values), max(values)))
    return found


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> Markup:
    """Return one horizontal bar per row: its name, its value, and the words behind the bar."""
    top = max((value for _, value, _ in rows), default=1) or 1
    shown = [(name, f"{max(value / top * 100, 0.3):.1f}", words) for name, value, words in rows]
    return part("bars", title, shown)


def histogram(edges: Sequence[float], counts: Sequence[int], unit: str, title: str) -> Markup:
    """Return bars of `counts` over the logarithmic bins between `edges`."""
    low, high = math.log(max(edges[0], 1)), math.log(max(edges[-1], 2))
    top, base = max(counts) or 1, _TOP + _DEPTH

    def right(value: float) -> float:
        return 100 * (math.log(max(value, 1)) - low) / ((high - low) or 1)

    parts = []
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        height, width = count / top * _DEPTH, max(right(end) - right(start) - 0.15, 0.1)
        parts.append(html(
            '<rect class="bar c0" x="{}%" y="{}" width="{}%" height="{}"><title>{}</title></rect>',
            f"{right(start):.2f}", f"{base - height:.1f}", f"{width:.2f}", f"{height:.1f}",
            f"{start:.0f} to {end - 1:.0f} {unit}: {count} rows",
        ))  # fmt: skip
    parts += [_tick(x, f"{value:,.0f}") for x, value in _apart(right, edges[0], edges[-1])]
    parts += [_text(-8, _TOP + 4, f"{top:,}", "end"), _text(-8, base, "0", "end"), _across("axis", base)]
    return _plot(PLOT_HEIGHT + 14, title, [*parts, _text("50%", base + 32, unit, "middle")])


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One row: its name, the difference with its limits, the figures in words, and the limit to be passed.

    `value`, `low` and `high` are None where nothing could be compared. `name` and `figures` may be markup.
    """

    name: str
    figures: str
    value: float | None
    low: float | None
    high: float | None
    limit: float | None = None


def forest(rows: Sequence[ForestRow], title: str) -> Markup:
    """Return differences with their intervals, one under the other, about a line at zero."""
    if not rows:
        return Markup()
    low, high = _ends([0.0, *(v for row in rows for v in (row.low, row.high, row.limit) if v is not None)])
    room = (high - low) * 0.06 or 1.0

    def right(value: float) -> str:
        return f"{(value - low + room) / (high - low + 2 * room) * 100:.2f}%"

    scale = [_across("axis", 1)]
    for value in round_values(low - room, high + room, 6):
        scale.append(_line("axis", right(value), 1, right(value), 5))
        scale.append(_text(right(value), 17, "0" if value == 0 else f"{value:+.3g}", "middle"))
    drawn = [(row.name, joined(_forest_row(right, row)), row.figures) for row in rows]
    return part("forest", drawn, joined(scale), title)


def forest_key(*, limits: bool) -> Markup:
    """Return what the marks of a forest mean; `limits` where rows have one."""
    said = "Dot: the difference; line: its 95 % interval; solid upright line: no difference"
    return note(said + ("; dashed red: the limit that the whole interval should pass." if limits else "."))


def round_values(low: float, high: float, most: int) -> list[float]:
    """Return at most about `most` round values from `low` to `high`, ascending."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _curve(frame: _Frame, curve: Curve, *, few: int) -> Iterator[Markup]:
    points = _finite(curve.points)
    if curve.kind == "dots":
        dots = joined(_dot(frame, x, y, 1.8) for x, y in points)
        yield html('<g class="dots">{}</g>', dots)
        return
    if curve.kind == "line":
        found = stretches(points)
        upper = [frame.place(x, high) for x, _, _, high in found] if len(points) > len(found) else []
        lower = [frame.place(x, low) for x, _, low, _ in reversed(found)] if upper else []
        shape = html('<polygon class="band" points="{}"></polygon>', " ".join(upper + lower)) if upper else ""
        path = " ".join(frame.place(x, mean) for x, mean, _, _ in found)
        yield _stretched(html('{}<polyline class="line" points="{}"></polyline>', shape, path))
        for x, mean, _, _ in found if len(found) <= few else ():
            yield _dot(frame, x, mean, 3.5, f"{x:g}: {mean:.5g}")
        for (x, _), (low, high) in zip(curve.points, curve.intervals, strict=False):
            place = f"{frame.right(x):.2f}%"
            yield _line("whisker", place, frame.y(low), place, frame.y(high))
        return
    held = list(_held(points, frame.last if curve.until is None else curve.until))
    if curve.kind == "area":
        held = [(held[0][0], frame.low), *held, (held[-1][0], frame.low)]
    shape, kind = ("polygon", "area") if curve.kind == "area" else ("polyline", "line")
    path = " ".join(frame.place(x, y) for x, y in held)
    yield _stretched(html(f'<{shape} class="{kind}" points="{{}}"></{shape}>', path))


def _stretched(body: Markup) -> Markup:
    return html(
        '<svg y="{}" width="100%" height="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>',
        _TOP, _DEPTH, _SIZE, _SIZE, body,
    )  # fmt: skip


def _held(points: Points, end: float) -> Iterator[tuple[float, float]]:
    before: float | None = None
    for x, y in points:
        if before is not None:
            yield x, before
        yield x, y
        before = y
    yield end, points[-1][1]


def _forest_row(right: Callable[[float], str], row: ForestRow) -> Iterator[Markup]:
    yield _line("axis", right(0.0), 0, right(0.0), "100%")
    if row.limit is not None:
        yield _line("limit", right(row.limit), 0, right(row.limit), "100%")
    if row.value is not None and row.low is not None and row.high is not None:
        ends = [right(row.low), right(row.high)]
        yield _line("whisker c0", ends[0], "50%", ends[1], "50%")
        yield html('<svg y="50%">{}</svg>', joined(_line("whisker c0", end, -4, end, 4) for end in ends))
        yield html('<circle class="dot c0" cx="{}" cy="50%" r="4.5"></circle>', right(row.value))


def _axes(frame: _Frame) -> Iterator[Markup]:
    for value in round_values(frame.low, frame.high, 4):
        yield _across("grid", frame.y(value))
        yield _text(-8, frame.y(value) + 4, f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}", "end")
    yield _across("axis", _TOP + _DEPTH)
    for x in round_values(frame.first, frame.last, 5):
        if x == int(x) or not frame.whole:
            yield _tick(frame.right(x), f"{x:,.6g}")


def _plot(height: float, title: str, parts: Iterator[Markup] | Sequence[Markup]) -> Markup:
    markup = '<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>'
    return html(markup, height, title, joined(parts))


def _line(kind: str, x1: object, y1: object, x2: object, y2: object) -> Markup:
    return html('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>', kind, x1, _short(y1), x2, _short(y2))


def _across(kind: str, y: float) -> Markup:
    return _line(kind, 0, y, "100%", y)


def _upright(frame: _Frame, x: float, tip: str = "") -> Markup:
    title = html("<title>{}</title>", tip) if tip else ""
    line = '<line class="cut" x1="{0}%" y1="{1}" x2="{0}%" y2="{2}">{3}</line>'
    return html(line, f"{frame.right(x):.2f}", _TOP, _TOP + _DEPTH, title)


def _text(x: object, y: float, words: str, anchor: str, kind: str = "label") -> Markup:
    markup = '<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>'
    return html(markup, kind, x, _short(y), anchor, words)


def _tick(x: float, words: str) -> Markup:
    place, base = f"{x:.2f}%", _TOP + _DEPTH
    return _line("axis", place, base, place, base + 4) + _text(place, base + 16, words, "middle")


def _dot(frame: _Frame, x: float, y: float, size: float, tip: str = "") -> Markup:
    title = html("<title>{}</title>", tip) if tip else ""
    place = f"{frame.right(x):.2f}%", f"{frame.y(y):.1f}"
    kind = html(' class="dot"') if tip else ""
    return html('<circle{} cx="{}" cy="{}" r="{}">{}</circle>', kind, *place, size, title)


def _short(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else value


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _finite(points: Points) -> list[tuple[float, float]]:
    return [point for point in points if math.isfinite(point[1])]


def _told(curve: Curve) -> str:
    points = _finite(curve.points)
    return f"{curve.name} {points[0][1]:.4g} to {points[-1][1]:.4g}"


def _missing(curve: Curve) -> Iterator[str]:
    lost = [x for x, y in curve.points if not math.isfinite(y)]
    if lost:
        steps = "1 step" if len(lost) == 1 else f"{len(lost):,} steps"
        yield f"{curve.name} is not a finite number at {steps}, first at step {lost[0]:g}."


def _apart(right: Callable[[float], float], low: float, high: float) -> Iterator[tuple[float, float]]:
    """Yield the ends of the axis and the round values between that leave room for their figures."""
    taken = [right(low), right(high)]
    yield from zip(taken, (low, high - 1), strict=True)
    first, last = math.floor(math.log10(max(low, 1))), math.ceil(math.log10(max(high, 10)))
    for value in (step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)):
        if low <= value <= high and all(abs(right(value) - x) > _ROOM for x in taken):
            taken.append(right(value))
            yield taken[-1], value
