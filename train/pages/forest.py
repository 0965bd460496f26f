"""A forest plot: differences with their intervals, one under the other, about a line at zero.

Owns the geometry. The figures stand beside each picture, so nothing is told by the picture alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.pages.parts import Html, note, safe
from train.pages.plots import round_values


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One row: its name, the difference with its limits, the figures in words, and the limit to be passed.

    `value`, `low` and `high` are None where nothing could be compared. `name` and `figures` may be `Html`.
    """

    name: str
    figures: str
    value: float | None
    low: float | None
    high: float | None
    limit: float | None = None


def forest(rows: Sequence[ForestRow], title: str) -> Html:
    """Return the plot of `rows` over one axis; nothing where there are none."""
    if not rows:
        return Html()
    known = [value for row in rows for value in (row.low, row.high, row.limit) if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    room = (high - low) * 0.06 or 1.0
    axis = _Axis(low - room, high + room)
    body = "".join(_row(axis, row) for row in rows)
    scale = f'<div class="row"><span></span>{axis.scale()}<span class="dim">{safe(title)}</span></div>'
    return Html(f'<div class="forest">{body}{scale}</div>')


def key(*, limits: bool) -> Html:
    """Return what the marks mean; `limits` where rows have one."""
    said = "Dot: the difference; line: its 95 % interval; solid upright line: no difference"
    return note(said + ("; dashed red: the limit that the whole interval should pass." if limits else "."))


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float

    def across(self, value: float) -> str:
        """Return where a value lies, in percent of the width."""
        return f"{(value - self.low) / (self.high - self.low) * 100:.2f}%"

    def scale(self) -> str:
        """Return the axis with its figures."""
        parts = ['<line class="axis" x1="0" y1="1" x2="100%" y2="1"/>']
        for value in round_values(self.low, self.high, 6):
            x = self.across(value)
            parts.append(f'<line class="axis" x1="{x}" y1="1" x2="{x}" y2="5"/>')
            words = "0" if value == 0 else f"{value:+.3g}"
            parts.append(f'<text class="label" x="{x}" y="17" text-anchor="middle">{words}</text>')
        return f'<svg class="scale" aria-hidden="true">{"".join(parts)}</svg>'


def _row(axis: _Axis, row: ForestRow) -> str:
    name, figures = safe(row.name), safe(row.figures)
    told = f'<span class="figures">{figures}</span>'
    return f'<div class="row"><span>{name}</span>{_picture(axis, row)}{told}</div>'


def _picture(axis: _Axis, row: ForestRow) -> str:
    zero = axis.across(0.0)
    parts = [f'<line class="axis" x1="{zero}" y1="0" x2="{zero}" y2="100%"/>']
    if row.limit is not None:
        x = axis.across(row.limit)
        parts.append(f'<line class="limit" x1="{x}" y1="0" x2="{x}" y2="100%"/>')
    if row.value is not None and row.low is not None and row.high is not None:
        low, high = axis.across(row.low), axis.across(row.high)
        parts.append(f'<line class="whisker" x1="{low}" y1="50%" x2="{high}" y2="50%"/>')
        ends = "".join(f'<line class="whisker" x1="{end}" y1="-4" x2="{end}" y2="4"/>' for end in (low, high))
        parts.append(f'<svg class="ends" y="50%">{ends}</svg>')
        parts.append(f'<circle class="dot" cx="{axis.across(row.value)}" cy="50%" r="4.5"></circle>')
    return f'<span class="picture"><svg aria-hidden="true">{"".join(parts)}</svg></span>'
