"""Curves over steps as inline SVG, however many steps there are.

Owns the thinning: beyond some hundred points a curve is drawn as the mean of each stretch, over the band from
its least to its greatest value, so that no spike is lost. What is not finite is a gap, and is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from train.pages.parts import Html, note, safe
from train.pages.plots import plot, round_values, text, tick

_STRETCHES = 300
_SIZE = 1_000  # the inner drawing's own units, both ways
_TOP, _DEPTH = 10, 150
_HEIGHT = _TOP + _DEPTH + 22
_MOST_DOTS, _FEW = 40, 12

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: its name, and (step, value) with ascending steps; values may be anything but finite."""

    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Some neighbouring points: their middle step, and mean, least and greatest value."""

    step: float
    mean: float
    low: float
    high: float


def figure(title: str, curves: Sequence[Curve], cuts: Iterable[tuple[float, str]] = ()) -> Html:
    """Return one plot of up to two `curves` over one axis of steps; `cuts` are steps that are marked.

    Nothing where no curve has a finite value.
    """
    drawn = [Curve(one.name, _finite(one.points)) for one in curves[:2]]
    drawn = [one for one in drawn if one.points]
    if not drawn:
        return Html()
    marks = sorted(cuts)
    frame = _Frame.around([point for one in drawn for point in one.points], [step for step, _ in marks])
    parts = [*_axes(frame), *(_cut(frame, place, *one) for place, one in enumerate(marks))]
    for index, one in enumerate(drawn):
        parts.append(_line(frame, one, second=index > 0))
    told = "; ".join(f"{one.name} {one.points[0][1]:.4g} to {one.points[-1][1]:.4g}" for one in drawn)
    picture = plot(_HEIGHT, f"{title} over steps: {told}", parts)
    remarks = "".join(_missing(one) for one in curves[:2])
    return Html(f"<figure><figcaption>{safe(title)}</figcaption>{picture}{_legend(drawn)}{remarks}</figure>")


@dataclass(frozen=True, slots=True)
class _Frame:
    """Which steps and values the plot spans."""

    first: float
    last: float
    low: float
    high: float

    @classmethod
    def around(cls, points: Points, steps: Sequence[float]) -> _Frame:
        across = [*(step for step, _ in points), *steps]
        values = [value for _, value in points]
        low, high = min(values), max(values)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        # A quantity that is never below 0 gets no axis below 0.
        return cls(min(across), max(across), 0.0 if 0 <= low < room else low - room, high + room)

    def across(self, step: float) -> float:
        """Return where a step lies, 0 to 1."""
        return (step - self.first) / (self.last - self.first) if self.last > self.first else 0.5

    def down(self, value: float) -> float:
        """Return where a value lies from the top, 0 to 1."""
        return (self.high - value) / (self.high - self.low)


def stretches(points: Points, most: int = _STRETCHES) -> list[tuple[float, float, float, float]]:
    """Return at most `most` stretches of neighbouring points: middle step, mean, least, greatest value."""
    return [(one.step, one.mean, one.low, one.high) for one in _stretches(points, most)]


def _stretches(points: Points, most: int = _STRETCHES) -> Iterator[_Stretch]:
    count = min(most, len(points))
    for index in range(count):
        part = points[index * len(points) // count : (index + 1) * len(points) // count]
        values = [value for _, value in part]
        yield _Stretch(
            (part[0][0] + part[-1][0]) / 2, math.fsum(values) / len(values), min(values), max(values)
        )


def _line(frame: _Frame, curve: Curve, *, second: bool) -> str:
    found = list(_stretches(curve.points))
    kind = "second" if second else "first"
    shape = ""
    if len(curve.points) > len(found):
        upper = [_place(frame, one.step, one.high) for one in found]
        lower = [_place(frame, one.step, one.low) for one in reversed(found)]
        shape = f'<polygon class="band" points="{" ".join(upper + lower)}"></polygon>'
    path = " ".join(_place(frame, one.step, one.mean) for one in found)
    inner = (
        f'<svg y="{_TOP}" width="100%" height="{_DEPTH}" viewBox="0 0 {_SIZE} {_SIZE}" '
        f'preserveAspectRatio="none">{shape}<polyline class="{kind}" points="{path}"></polyline></svg>'
    )
    few = len(found) <= (_MOST_DOTS if second else _FEW)
    return inner + ("".join(_dot(frame, one, second=second) for one in found) if few else "")


def _dot(frame: _Frame, one: _Stretch, *, second: bool) -> str:
    y = _TOP + frame.down(one.mean) * _DEPTH
    kind = "dot two" if second else "dot"
    return (
        f'<circle class="{kind}" cx="{frame.across(one.step) * 100:.2f}%" cy="{y:.1f}" r="3.5">'
        f"<title>step {one.step:g}: {one.mean:.5g}</title></circle>"
    )


def _place(frame: _Frame, step: float, value: float) -> str:
    return f"{frame.across(step) * _SIZE:.0f},{frame.down(value) * _SIZE:.0f}"


def _axes(frame: _Frame) -> Iterator[str]:
    for value in round_values(frame.low, frame.high, 4):
        y = _TOP + frame.down(value) * _DEPTH
        yield f'<line class="grid" x1="0" y1="{y:.1f}" x2="100%" y2="{y:.1f}"/>'
        yield text(-8, y + 4, f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}", "end")
    base = _TOP + _DEPTH
    yield f'<line class="axis" x1="0" y1="{base}" x2="100%" y2="{base}"/>'
    for step in round_values(frame.first, frame.last, 5):
        if step == int(step):
            yield tick(frame.across(step) * 100, base, f"{step:,.0f}")


def _cut(frame: _Frame, place: int, step: float, words: str) -> str:
    x = f"{frame.across(step) * 100:.2f}%"
    line = f'<line class="cut" x1="{x}" y1="{_TOP}" x2="{x}" y2="{_TOP + _DEPTH}"/>'
    anchor = "end" if frame.across(step) > 0.5 else "start"
    return line + text(x, _TOP - 1 + 11 * (place % 3), words, anchor)


def _legend(curves: Sequence[Curve]) -> str:
    if len(curves) < 2:
        return ""
    kinds = ("", ' class="two"')
    items = (f"<span><i{kind}></i>{safe(one.name)}</span>" for kind, one in zip(kinds, curves, strict=True))
    return f'<div class="legend">{"".join(items)}</div>'


def _finite(points: Points) -> list[tuple[float, float]]:
    return [point for point in points if math.isfinite(point[1])]


def _missing(curve: Curve) -> str:
    lost = [step for step, value in curve.points if not math.isfinite(value)]
    if not lost:
        return ""
    steps = "1 step" if len(lost) == 1 else f"{len(lost):,} steps"
    return note(f"{curve.name} is not a finite number at {steps}, first at step {lost[0]:g}.")
