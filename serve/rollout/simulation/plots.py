"""A simulation as pictures: bars of text, and a PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve.rollout.simulation.report import CURVE_POINTS, RuleDocument

BAR_WIDTH = 50
_BAR_ROWS = 10


def bars(row: RuleDocument, minutes: float) -> list[str]:
    """Return a plot of text: the share of runs rolled back by time."""
    step = (CURVE_POINTS - 1) // _BAR_ROWS
    lines = [f"{row.rule}: share of runs rolled back by time"]
    for place in range(step, CURVE_POINTS, step):
        share = row.curve[place]
        filled = "█" * round(share * BAR_WIDTH)
        lines.append(f"{minutes * place / (CURVE_POINTS - 1):7.0f} min  {filled:<{BAR_WIDTH}} {share:.1%}")
    return lines


def draw_png(rows: Sequence[RuleDocument], minutes: float, path: str) -> None:
    """Write a PNG of all rules' shares rolled back by time.

    Raises: ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    times = np.linspace(0, minutes, CURVE_POINTS)
    figure, axes = plt.subplots(figsize=(9, 6.5), layout="constrained")
    for place, row in enumerate(rows):
        axes.step(times, row.curve, where="post", label=row.rule, linewidth=2.5 if place == 0 else 1)
    axes.set(xlabel="minutes", ylabel="share of rollouts rolled back", ylim=(-0.02, 1.02))
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
