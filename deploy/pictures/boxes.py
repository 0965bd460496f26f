"""Boxes and arrows as SVG, in the colours of docs/wardrobe.svg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

INK, DIM = "#0f172a", "#475569"
COLOURS = MappingProxyType(
    {
        "plain": ("#f8fafc", "#94a3b8"),
        "indigo": ("#eef2ff", "#6366f1"),
        "green": ("#ecfdf5", "#10b981"),
        "amber": ("#fffbeb", "#d97706"),
        "red": ("#fef2f2", "#dc2626"),
    }
)
"""Fill and border by name."""

_ARROW = (
    '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#334155"/></marker></defs>'
)


@dataclass(frozen=True, slots=True)
class Box:
    """A box with its corner, size, first line in bold, and further lines; pixels."""

    x: int
    y: int
    width: int
    height: int
    lines: Sequence[str]
    colour: str = "plain"


@dataclass(frozen=True, slots=True)
class Arrow:
    """A line through points, with a head at its end (`both`: at its beginning too) and a word at `at`."""

    points: Sequence[tuple[int, int]]
    word: str = ""
    at: tuple[int, int] = (0, 0)
    both: bool = False


def diagram(title: str, size: tuple[int, int], boxes: Sequence[Box], arrows: Sequence[Arrow]) -> str:
    """Return the boxes and arrows on white."""
    width, height = size
    parts = [*map(_box, boxes), *map(_arrow, arrows)]
    return svg(title, width, height, _ARROW + "\n".join(["", *parts, ""]))


def svg(title: str, width: int, height: int, body: str) -> str:
    """Return a whole SVG document on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="13"><title>{escape(title)}</title>'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{body}</svg>\n'
    )


def label(x: float, y: float, text: str, *, anchor: str = "middle", colour: str = INK, more: str = "") -> str:
    """Return one line of text; y is its base line."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(text)}</text>'


def _box(box: Box) -> str:
    fill, border = COLOURS[box.colour]
    middle = box.x + box.width / 2
    first = box.y + (box.height - 18 * (len(box.lines) - 1)) / 2 + 5
    lines = [
        label(middle, first + 18 * place, text, more=' font-weight="bold"' if place == 0 else "")
        for place, text in enumerate(box.lines)
    ]
    return (
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8" fill="{fill}" '
        f'stroke="{border}" stroke-width="1.5"/>{"".join(lines)}'
    )


def _arrow(arrow: Arrow) -> str:
    path = "M" + "L".join(f"{x} {y}" for x, y in arrow.points)
    start = ' marker-start="url(#a)"' if arrow.both else ""
    line = f'<path d="{path}" fill="none" stroke="#334155" stroke-width="1.6" marker-end="url(#a)"{start}/>'
    word = label(*arrow.at, arrow.word, colour=DIM, more=' font-size="12"') if arrow.word else ""
    return line + word
