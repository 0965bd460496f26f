"""Counts as inline SVG: bars that need no script, no font and no network.

Owns the geometry. Positions across are shares of the width, so that letters keep their size on any screen;
colours come from the style sheet, so that a plot follows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from train.pages.parts import Html, safe

_HEIGHT = 180
_BOTTOM, _TOP = 34, 12
_ROOM = 15.0  # percent of the width that a figure at the axis needs, on a narrow screen


def histogram(edges: Sequence[float], counts: Sequence[int], unit: str, title: str) -> Html:
    """Return bars of `counts` over the logarithmic bins between `edges`."""
    low, high = math.log(max(edges[0], 1)), math.log(max(edges[-1], 2))
    top = max(counts) or 1

    def across(value: float) -> float:
        return 100 * (math.log(max(value, 1)) - low) / ((high - low) or 1)

    base = _HEIGHT - _BOTTOM
    parts = []
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        height = count / top * (base - _TOP)
        tip = f"{start:.0f} to {end - 1:.0f} {unit}: {count} rows"
        parts.append(
            f'<rect class="bar" x="{across(start):.2f}%" y="{base - height:.1f}" '
            f'width="{max(across(end) - across(start) - 0.15, 0.1):.2f}%" height="{height:.1f}">'
            f"<title>{safe(tip)}</title></rect>"
        )
    parts += [tick(x, base, f"{value:,.0f}") for x, value in _apart(across, edges[0], edges[-1])]
    parts.append(text(-8, _TOP + 4, f"{top:,}", "end"))
    parts.append(text(-8, base, "0", "end"))
    parts.append(f'<line class="axis" x1="0" y1="{base}" x2="100%" y2="{base}"/>')
    parts.append(text("50%", _HEIGHT, unit, "middle"))
    return plot(_HEIGHT, title, parts)


def bars(values: Mapping[str, int], title: str) -> Html:
    """Return one horizontal bar per name, with its count and share."""
    total, top = sum(values.values()) or 1, max(values.values(), default=1) or 1
    rows = (
        f"<span>{safe(name)}</span>"
        f'<svg aria-hidden="true"><rect class="bar" width="{max(count / top * 100, 0.3):.1f}%" height="14">'
        f"<title>{safe(name)}: {count}</title></rect></svg>"
        f"<span>{count:,} ({count / total:.1%})</span>"
        for name, count in values.items()
    )
    return Html(f'<div class="counts" role="group" aria-label="{safe(title)}">{"".join(rows)}</div>')


def plot(height: int, title: str, parts: Sequence[str]) -> Html:
    """Return the picture around `parts`, with the room for the figures beside it."""
    head = f'<svg class="plot" height="{height}" role="img" aria-label="{safe(title)}">'
    return Html(f"{head}{''.join(parts)}</svg>")


def text(x: float | str, y: float, words: str, anchor: str) -> Html:
    """Return words at a place; `x` is in pixels, or a text in percent."""
    return Html(f'<text class="label" x="{x}" y="{y:.1f}" text-anchor="{anchor}">{safe(words)}</text>')


def tick(x: float, y: float, words: str) -> Html:
    """Return a mark under the axis at `y`, `x` percent across."""
    line = f'<line class="axis" x1="{x:.2f}%" y1="{y}" x2="{x:.2f}%" y2="{y + 4}"/>'
    return Html(line + text(f"{x:.2f}%", y + 16, words, "middle"))


def round_values(low: float, high: float, most: int) -> list[float]:
    """Return at most about `most` round values from `low` to `high`, ascending."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _apart(across: Callable[[float], float], low: float, high: float) -> Iterator[tuple[float, float]]:
    """Yield the ends of the axis and the round values between that leave room for their figures."""
    ends = (across(low), across(high))
    yield from zip(ends, (low, high - 1), strict=True)
    taken = list(ends)
    for value in _decades(low, high):
        if all(abs(across(value) - x) > _ROOM for x in taken):
            taken.append(across(value))
            yield taken[-1], value


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(max(low, 1))), math.ceil(math.log10(max(high, 10)))
    marks = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return [mark for mark in marks if low <= mark <= high]
