"""The figure of one ascent: how a pattern evolves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oipjax.plots.style import (
    BLUE,
    FAINT,
    INK,
    contrast,
    hide_axes,
    number,
    plain_axes,
    show_image,
)

ENHANCED = 1.5
"""Standard deviations that become black and white in the contrast-enhanced row."""
CURVE_SHARE = 0.56
"""Share of the width that the curve takes; the table takes the rest."""


def oip_figure(
    title: str,
    steps: Sequence[int],
    images: np.ndarray,
    scores: np.ndarray,
    changes: np.ndarray,
    note: str = "",
) -> Figure:
    """How one pattern evolves: its images, plain and contrast-enhanced, the curve, and a table.

    Args:
        title: of the figure.
        steps: the recorded steps ``[t]``.
        images: ``[t, h, w, c]``.
        scores: ``[t]``.
        changes: ``[t]``, change of the score by the last update.
        note: one line below the title.
    """
    count = len(steps)
    figure = Figure(figsize=(11.0, 6.6), facecolor="white")
    figure.text(0.03, 0.955, title, fontsize=14, fontweight="bold", color=INK, va="center")
    figure.text(0.03, 0.915, note, fontsize=9, color=FAINT, va="center")
    grid = figure.add_gridspec(
        3,
        count,
        left=0.075,
        right=0.985,
        top=0.86,
        bottom=0.1,
        height_ratios=[1, 1, 1.75],
        hspace=0.16,
        wspace=0.06,
    )
    rows = {"plain": _largest_deviation(images), "enhanced": ENHANCED}
    for row, (name, spread) in enumerate(rows.items()):
        for column in range(count):
            axes = figure.add_subplot(grid[row, column])
            show_image(axes, contrast(images[column], spread))
            hide_axes(axes)
            if row == 0:
                axes.set_title(f"step {steps[column]}", fontsize=9, color=INK, pad=4)
            if column == 0:
                axes.set_ylabel(name, fontsize=9, color=INK)
    split = max(1, round(count * CURVE_SHARE))
    _draw_curve(figure.add_subplot(grid[2, :split]), steps, scores)
    if split < count:
        _draw_table(figure.add_subplot(grid[2, split:]), steps, scores, changes)
    return figure


def _largest_deviation(images: np.ndarray) -> float:
    """The largest deviation of a pixel from its image's mean, in units of that of all pixels."""
    deviation = np.abs(images - images.mean((1, 2, 3), keepdims=True))
    return float(deviation.max() / max(images.std(), 1e-9))


def _draw_curve(axes: Axes, steps: Sequence[int], scores: np.ndarray) -> None:
    first = steps[1] if len(steps) > 1 else 1
    axes.plot(np.maximum(steps, 0), scores, "o-", color=BLUE, markersize=4, linewidth=1.5)
    axes.set_xscale("symlog", linthresh=max(1, first), linscale=0.4)
    axes.set_xticks(list(steps), list(map(str, steps)))
    axes.minorticks_off()
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("score (mean activation)", fontsize=9)
    plain_axes(axes)


def _draw_table(axes: Axes, steps: Sequence[int], scores: np.ndarray, changes: np.ndarray) -> None:
    axes.set_axis_off()
    cells = []
    for step, score, change in zip(steps, scores, changes, strict=True):
        cells.append([str(step), number(score), f"{change:+.3g}"])
    table = axes.table(
        cells,
        colLabels=["step", "score", "change per step"],
        loc="center right",
        cellLoc="right",
        colLoc="right",
        colWidths=[0.2, 0.3, 0.4],
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, min(1.5, 11 / (len(steps) + 1)))
    for cell in table.get_celld().values():
        cell.set_edgecolor("#d0d0d0")
