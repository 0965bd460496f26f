"""Plots as one SVG file that stands alone, for a README or a guide."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from registry.report.parts import STYLE, html, joined
from registry.report.plots import PLOT_HEIGHT, Plot

_WIDTH, _LEFT, _RIGHT, _ROW = 720, 58, 16, 18


def picture_of(title: str, plots: Sequence[Plot], *, columns: int = 1, said: str = "") -> str:
    """Return one SVG file: what is `said`, and under it the plots with their titles, legends and remarks."""
    head = 2.5 * _ROW if said else 0.0
    parts = [html('<text class="head" x="{}" y="{}">{}</text>', _ROW, _ROW, said)] if said else []
    top = head
    for place in range(0, len(plots), columns):
        row = plots[place : place + columns]
        for column, plot in enumerate(row):
            body = joined(_placed(plot))
            parts.append(html('<svg x="{}" y="{:g}" width="{}">{}</svg>', column * _WIDTH, top, _WIDTH, body))
        top += max(map(_height, row))
    width = columns * _WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top:g}" role="img">'
        f"{html('<title>{}</title>', title)}<style>\n{STYLE}</style>"
        f'<rect class="paper" width="100%" height="100%"/>{joined(parts)}</svg>\n'
    )


def _height(plot: Plot) -> float:
    return _ROW * (3 + len(plot.said) + bool(plot.legend)) + PLOT_HEIGHT


def _placed(plot: Plot) -> Iterator[Markup]:
    yield html('<text class="head" x="{}" y="{}">{}</text>', _ROW, _ROW, plot.title)
    if plot.unit:
        unit = '<text class="said" x="{}" y="{}" text-anchor="end">{}</text>'
        yield html(unit, _WIDTH - _RIGHT, _ROW, plot.unit)
    inner = '<svg x="{}" y="{}" width="{}" height="{}">{}</svg>'
    yield html(inner, _LEFT, 1.5 * _ROW, _WIDTH - _LEFT - _RIGHT, PLOT_HEIGHT, joined(plot.inner()))
    top, left = 2.5 * _ROW + PLOT_HEIGHT, float(_LEFT)
    for colour, name in plot.legend:
        box = '<rect class="swatch c{}" x="{:g}" y="{:g}" width="16" height="4"/>'
        yield html(box, colour, left, top - 6)
        yield html('<text class="said" x="{:g}" y="{:g}">{}</text>', left + 22, top, name)
        left += 50 + 6.5 * len(name)
    top += _ROW * bool(plot.legend)
    for place, text in enumerate(plot.said):
        yield html('<text class="said" x="{}" y="{:g}">{}</text>', _LEFT, top + _ROW * place, text)
