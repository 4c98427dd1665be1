"""The figure of an atlas: every map's best image on one page."""

import io
import math
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from oipjax.plots.style import FAINT, INACTIVE, INK, contrast, number, percent
from oipjax.study import DEAD, FOUND, Atlas

PAGE_WIDTH = 8.27
"""Of A4, in inches."""
PAGE_HEIGHT = 11.69
MARGIN = 0.3
HEAD = 0.72
FOOT = 0.32
LABEL = 0.15
"""Height of the line below each picture, in inches."""
DARK = "#4d4d4d"
SHARE_FROM = 0.45
"""Cells must be wider than this, in inches, to show the share of the bound."""


def atlas_figure(atlas: Atlas, caption: str = "") -> Figure:
    """Every map's best image with index and score on a page as wide as A4.

    Dead maps are dark, unresolved ones hatched.

    Args:
        atlas: the maps.
        caption: a line about how the images were found.
    """
    layout = _layout(atlas)
    bottom = HEAD + layout.height + FOOT
    figure = Figure(figsize=(PAGE_WIDTH, bottom), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE_WIDTH), ylim=(bottom, 0))
    axes.set_axis_off()
    axes.text(MARGIN, 0.36, _title(atlas), fontsize=13, color=INK, fontweight="bold")
    axes.text(MARGIN, 0.57, caption, fontsize=7.5, color=FAINT)
    for position in range(len(atlas.maps)):
        _draw_map(axes, atlas, position, layout)
    layout.mosaic.draw(axes, layout.left, HEAD)
    legend = _legend(atlas, layout)
    axes.text(MARGIN, HEAD + layout.height + FOOT * 0.55, legend, fontsize=6.5, color=FAINT)
    # Drawing the mosaic changed both.
    axes.set_xlim(0, PAGE_WIDTH)
    axes.set_ylim(bottom, 0)
    axes.set_aspect("auto")
    return figure


def warm_up() -> None:
    """Load fonts and the like, which a first figure takes; it may run in another thread."""
    figure = Figure()
    figure.text(0.5, 0.5, "0", fontweight="bold")
    figure.text(0.5, 0.5, "0")
    figure.savefig(io.BytesIO(), format="png")


class _Layout(NamedTuple):
    """Where the maps stand on the page; lengths in inches."""

    columns: int
    cell: float
    height: float
    left: float
    font_size: float
    mosaic: "_Mosaic"


def _layout(atlas: Atlas) -> _Layout:
    count = len(atlas.maps)
    width = PAGE_WIDTH - 2 * MARGIN
    columns, cell = _grid(count, width, PAGE_HEIGHT - HEAD - FOOT)
    rows = math.ceil(count / columns)
    mosaic = _Mosaic(atlas.images.shape[2:4], cell, 0.06 * cell + LABEL, width / columns - cell)
    drawn = (columns - 1) * mosaic.across + cell
    return _Layout(
        columns=columns,
        cell=cell,
        height=rows * (cell * 1.06 + LABEL),
        left=MARGIN + (width - drawn) / 2,
        font_size=min(8.0, max(4.2, 72 * cell / 11)),
        mosaic=mosaic,
    )


def _grid(count: int, width: float, height: float) -> tuple[int, float]:
    """Columns, and side of a cell, that use the page best; cells are at most 1.5 inches wide."""
    best_columns = 1
    best_cell = 0.0
    for columns in range(1, count + 1):
        rows = math.ceil(count / columns)
        cell_by_width = 0.92 * width / columns
        cell_by_height = (height / rows - LABEL) / 1.06
        cell = min(cell_by_width, cell_by_height, 1.5)
        if cell > best_cell:
            best_columns = columns
            best_cell = cell
    return best_columns, best_cell


def _title(atlas: Atlas) -> str:
    counts = atlas.counts
    name = f"{atlas.model} \N{MIDDLE DOT} {atlas.layer}"
    title = f"{name}: {counts['found']} of {counts['maps']} maps found"
    if counts["dead"]:
        title += f", {counts['dead']} proved dead"
    return title


def _legend(atlas: Atlas, layout: _Layout) -> str:
    legend = "Below: the map's index and score (mean activation)"
    if np.isfinite(atlas.achieved).any() and layout.cell > SHARE_FROM:
        legend += ", and % of its proved upper limit"
    legend += "."
    if atlas.counts["unresolved"]:
        legend += "  Hatched: unresolved."
    if atlas.counts["dead"]:
        legend += "  Dark: proved dead."
    return legend


def _draw_map(axes: Axes, atlas: Atlas, position: int, layout: _Layout) -> None:
    row, column = divmod(position, layout.columns)
    cell = layout.cell
    x = layout.left + column * layout.mosaic.across
    y = HEAD + row * layout.mosaic.down
    is_found = int(atlas.status[position]) == FOUND
    if is_found:
        layout.mosaic.panels[row, column] = contrast(atlas.images[position, 0], 2.0)
    else:
        _draw_mark(axes, int(atlas.status[position]) == DEAD, x, y, layout)
    size = layout.font_size
    base = y + cell + LABEL * 0.68
    colour = INK if is_found else INACTIVE
    index = str(atlas.maps[position])
    axes.text(x, base, index, fontsize=size, color=colour, fontweight="bold")
    text = _score(atlas, position, cell)
    axes.text(x + cell, base, text, fontsize=size, color=FAINT, ha="right")


def _score(atlas: Atlas, position: int, cell: float) -> str:
    """The score of a found map, or the bound of an unresolved one."""
    status = int(atlas.status[position])
    if status == FOUND:
        text = number(atlas.scores[position, 0])
        share = atlas.achieved[position]
        if np.isfinite(share) and cell > SHARE_FROM:
            text += f" \N{MIDDLE DOT} {percent(share)}"
        return text
    bound = atlas.bound[position]
    if status == DEAD or not np.isfinite(bound):
        return ""
    return f"\N{LESS-THAN OR EQUAL TO} {number(bound)}"


def _draw_mark(axes: Axes, is_dead: bool, x: float, y: float, layout: _Layout) -> None:
    """A dark square for a dead map, a hatched one for an unresolved map."""
    cell = layout.cell
    square = Rectangle((x, y), cell, cell, edgecolor="#bbbbbb", linewidth=0.5)
    square.set_facecolor(DARK if is_dead else "#f4f4f4")
    square.set_hatch("" if is_dead else "////")
    axes.add_patch(square)
    axes.text(
        x + cell / 2,
        y + cell / 2,
        "dead" if is_dead else "unresolved",
        fontsize=layout.font_size if is_dead else min(layout.font_size, 72 * cell / 7),
        color="white" if is_dead else INACTIVE,
        ha="center",
        va="center",
        bbox={"facecolor": DARK if is_dead else "white", "edgecolor": "none", "pad": 1.2},
    )


class _Mosaic:
    """Square panels in rows and columns, drawn as one image: a hundred single images take long.

    Args:
        shape: height and width of each panel's image, in pixels.
        cell: side of a panel.
        below: largest gap below a panel.
        beside: largest gap beside a panel.
    """

    FINE = 24
    """Pixels are repeated until a panel has this many along each side."""

    def __init__(self, shape: tuple[int, ...], cell: float, below: float, beside: float):
        height, width = shape
        self.repeats = (math.ceil(self.FINE / height), math.ceil(self.FINE / width))
        self.size = (height * self.repeats[0], width * self.repeats[1])
        gap_down = int(below / cell * self.size[0])
        gap_across = int(beside / cell * self.size[1])
        self.steps = (self.size[0] + gap_down, self.size[1] + gap_across)
        self.down = cell * self.steps[0] / self.size[0]
        self.across = cell * self.steps[1] / self.size[1]
        self.panels: dict[tuple[int, int], np.ndarray] = {}

    def draw(self, axes: Axes, left: float, top: float) -> None:
        """Draw the ``panels``, ``{(row, column): [h, w] or [h, w, 3]}``, values in [0, 1]."""
        if not self.panels:
            return
        rows = 1 + max(row for row, _ in self.panels)
        columns = 1 + max(column for _, column in self.panels)
        image = np.zeros((rows, self.steps[0], columns, self.steps[1], 4), np.uint8)
        for (row, column), panel in self.panels.items():
            colours = panel.reshape(*panel.shape[:2], -1)
            fine = np.round(255 * colours).repeat(self.repeats[0], 0).repeat(self.repeats[1], 1)
            place = image[row, : self.size[0], column, : self.size[1]]
            place[..., :3] = fine
            place[..., 3] = 255
        right = left + columns * self.across
        bottom = top + rows * self.down
        flat = image.reshape(rows * self.steps[0], -1, 4)
        axes.imshow(flat, extent=(left, right, bottom, top), interpolation="nearest")
