"""Figures of what real images leave in a network. Arrays in, matplotlib figures out, as in `oipjax.plots`."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from oipjax.plots.atlas import BLUE, FAINT, INK, contrast


def maps_figure(
    title: str,
    pixels: np.ndarray,
    captions: Sequence[str],
    values: Mapping[str, np.ndarray],
    note: str = "",
    *,
    scale: Literal["layer", "map"] = "layer",
) -> Figure:
    """Images side by side, and below each all maps of every layer; a layer without space is drawn as bars.

    Args:
        title: of the figure.
        pixels: the images ``[n, h, w, c]`` in [0, 1].
        captions: a text above each image.
        values: activations ``[n, h, w, k]`` or ``[n, k]`` by the layer's name, from top to bottom.
        note: a line below the title.
        scale: brightness is comparable within a layer, or, where weak maps are to be seen too, only
            within a map; images can be compared in both.
    """
    count, left, gap, foot = len(pixels), 1.05, 0.22, 0.3
    width = {1: 6.6, 2: 4.4, 3: 3.7}.get(count, 2.9)
    shapes = {name: _mosaic_shape(array, scale)[1] for name, array in values.items()}
    heights = [width * shape[0] / shape[1] if shape else 0.9 for shape in shapes.values()]
    head = (0.85 if note else 0.6) + 0.17 * (1 + max(caption.count("\n") for caption in captions))
    top = head + 1.15 + gap
    size = (
        left + count * (width + gap) + 0.1,
        top + sum(heights) + len(heights) * (gap + 0.12) + foot,
    )
    figure = Figure(figsize=size, facecolor="white")

    def place(column: int, y: float, w: float, h: float) -> Axes:
        x = left + column * (width + gap) + (width - w) / 2
        return figure.add_axes((x / size[0], 1 - (y + h) / size[1], w / size[0], h / size[1]))

    figure.text(
        0.15 / size[0],
        1 - 0.28 / size[1],
        title,
        fontsize=13,
        fontweight="bold",
        color=INK,
        va="center",
    )
    figure.text(0.15 / size[0], 1 - 0.55 / size[1], note, fontsize=8, color=FAINT, va="center")
    for column in range(count):
        axes = place(column, head, 1.15, 1.15)
        picture = pixels[column, ..., 0] if pixels.shape[3] == 1 else contrast(pixels[column], 2.0)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(captions[column], fontsize=9, color=INK, pad=4)
        axes.set_axis_off()
    y = top
    for (name, array), height in zip(values.items(), heights, strict=True):
        low, high = float(array.min()), float(array.max())
        tiled, shape = _mosaic_shape(array, scale)
        limits = f"{low:.3g} to {high:.3g}"
        described = " x ".join(map(str, array.shape[1:-1]))
        words = [
            f"{array.shape[-1]} maps" if described else f"{array.shape[-1]} nodes",
            described,
            limits,
        ]
        middle = 1 - (y + height / 2) / size[1]
        figure.text(
            0.15 / size[0], middle, name, fontsize=10, fontweight="bold", color=INK, va="bottom"
        )
        text = "\n".join(word for word in words if word)
        figure.text(
            0.15 / size[0], middle, text, fontsize=7.5, color=FAINT, va="top", linespacing=1.4
        )
        for column in range(count):
            axes = place(column, y, width, height)
            if shape is None:
                axes.bar(np.arange(array.shape[1]), array[column], width=0.85, color=BLUE)
                axes.set_xlim(-0.7, array.shape[1] - 0.3)
                axes.set_ylim(min(0, low) * 1.05, max(high, low + 1e-9) * 1.05)
                axes.spines[["top", "right", "left"]].set_visible(False)
                axes.set_yticks([])
                axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
                axes.tick_params(labelsize=6.5, length=2, colors="#666666")
            else:
                _show_mosaic(axes, array[column], tiled[column], shape)
        y += height + gap + 0.12
    legend = "Left of a row: the number of its first map, from 0. Brightness goes with the root of the value, and is "
    legend += "comparable within a layer." if scale == "layer" else "comparable within a map alone."
    if any(array.ndim == 4 and array.min() < 0 for array in values.values()):
        legend += " Red: above 0; blue: below."
    figure.text(0.15 / size[0], 0.14 / size[1], legend, fontsize=7, color=FAINT, va="center")
    return figure


def exemplars_figure(
    title: str,
    names: Sequence[str],
    reasons: Sequence[str],
    patterns: np.ndarray,
    pattern_scores: Sequence[float],
    images: np.ndarray,
    scores: np.ndarray,
    note: str = "",
) -> Figure:
    """Maps row by row: the pattern found for it, and beside it the real images that excite it most.

    Args:
        title: of the figure.
        names: of the maps, ``k``.
        reasons: a line below each name.
        patterns: ``[k, h, w, c]``.
        pattern_scores: ``k``.
        images: ``[k, r, h, w, c]`` in [0, 1].
        scores: ``[k, r]``.
        note: a line below the title.
    """
    count, keep = scores.shape
    cell, label, left, head = 0.82, 0.2, 1.5, 1.12
    size = (left + (keep + 1) * (cell + 0.08) + 0.45, head + count * (cell + label) + 0.1)
    figure = Figure(figsize=size, facecolor="white")
    figure.text(
        0.2 / size[0],
        1 - 0.3 / size[1],
        title,
        fontsize=13,
        fontweight="bold",
        color=INK,
        va="center",
    )
    figure.text(0.2 / size[0], 1 - 0.57 / size[1], note, fontsize=8, color=FAINT, va="center")
    columns = [left, *(left + 0.3 + (i + 1) * (cell + 0.08) for i in range(keep))]
    for x, text in ((columns[0], "pattern"), (columns[1], "images that excite it most")):
        figure.text(
            x / size[0], 1 - (head - 0.16) / size[1], text, fontsize=9, color=INK, va="center"
        )
    for row in range(count):
        y = head + row * (cell + label)
        middle = 1 - (y + cell / 2) / size[1]
        figure.text(
            0.2 / size[0],
            middle,
            names[row],
            fontsize=9.5,
            fontweight="bold",
            color=INK,
            va="bottom",
        )
        figure.text(
            0.2 / size[0],
            middle,
            reasons[row],
            fontsize=7.5,
            color=FAINT,
            va="top",
            linespacing=1.4,
        )
        shown = [contrast(patterns[row], 2.0), *(image[..., 0] for image in images[row])]
        values = [pattern_scores[row], *scores[row]]
        for x, picture, value in zip(columns, shown, values, strict=True):
            axes = figure.add_axes(
                (x / size[0], 1 - (y + cell) / size[1], cell / size[0], cell / size[1])
            )
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            axes.text(0.5, -0.03, f"{value:.3g}", transform=axes.transAxes, fontsize=7, color=FAINT,
                      ha="center", va="top")  # fmt: skip
    return figure


def mosaic_columns(maps: int) -> int:
    """How many maps stand side by side: about twice as many as one above another, in full rows if that is possible."""
    wanted = math.sqrt(2 * maps)
    full = [
        columns
        for columns in range(math.ceil(wanted), math.floor(2 * wanted) + 1)
        if maps % columns == 0
    ]
    return full[0] if full else math.ceil(wanted)


def _mosaic_shape(array: np.ndarray, scale: str) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Values for display in [0, 1], or [-1, 1] where some are negative, and the mosaic's shape in nodes."""
    if array.ndim == 2:
        return array, None
    size = (
        np.abs(array).max((0, 1, 2))
        if scale == "map"
        else np.quantile(np.abs(array).max((1, 2)), 0.98)
    )
    columns = mosaic_columns(array.shape[3])
    rows = math.ceil(array.shape[3] / columns)
    # A gap of a ninth of a map keeps maps of 3x3 nodes apart from each other.
    pad = max(1, round(array.shape[2] / 9))
    shape = (rows * (array.shape[1] + pad) + pad, columns * (array.shape[2] + pad) + pad)
    shown = np.clip(array / np.maximum(size, 1e-9), -1, 1)
    return np.sign(shown) * np.sqrt(np.abs(shown)), shape


def _show_mosaic(axes: Axes, values: np.ndarray, tiled: np.ndarray, shape: tuple[int, int]) -> None:
    h, w, maps = values.shape
    pad, columns = max(1, round(w / 9)), mosaic_columns(maps)
    canvas = np.full(shape, np.nan)
    for number in range(maps):
        row, column = divmod(number, columns)
        y, x = pad + row * (h + pad), pad + column * (w + pad)
        canvas[y : y + h, x : x + w] = tiled[..., number]
    signed = bool((tiled < 0).any())
    cmap = colormaps["RdBu_r" if signed else "magma"].with_extremes(bad="white")
    axes.imshow(
        canvas, cmap=cmap, vmin=-1 if signed else 0, vmax=1, interpolation="nearest", aspect="auto"
    )
    axes.set_xticks([])
    firsts = range(0, maps, columns)
    axes.set_yticks(
        [pad + (h - 1) / 2 + row * (h + pad) for row in range(len(firsts))],
        [str(n) for n in firsts],
    )
    axes.tick_params(length=0, labelsize=6, pad=1, colors="#666666")
    axes.spines[:].set_visible(False)
