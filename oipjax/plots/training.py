"""Figures of a training: curves, reconstructions, and a confusion matrix."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from oipjax.plots.style import BLUE, FAINT, INACTIVE, INK, Page, hide_axes, plain_axes, show_image

if TYPE_CHECKING:
    from oipjax.training import Curve


def history_figure(
    epochs: Sequence[int], curves: "Sequence[Curve]", best_epoch: int, title: str
) -> Figure:
    """Training curves side by side; the epoch that was kept is marked.

    Args:
        epochs: numbers of the epochs.
        curves: one panel each.
        best_epoch: the epoch that was kept.
        title: of the figure.
    """
    width = 9.0 if len(curves) == 2 else 6.0
    figure = Figure(figsize=(width, 3.6), facecolor="white", layout="constrained")
    size_in_one_line = 128 * width / len(title)
    figure.suptitle(title, fontsize=min(11, size_in_one_line), color=INK)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, curve in zip(panels, curves, strict=True):
        _draw_history(axes, epochs, curve, best_epoch)
    panels[-1].legend(fontsize=8, frameon=False)
    return figure


def _draw_history(axes: Axes, epochs: Sequence[int], curve: "Curve", best_epoch: int) -> None:
    label = "training, during the epoch"
    axes.plot(epochs, curve.train, "o-", color=BLUE, markersize=3, label=label)
    if not all(map(math.isnan, curve.held_out)):
        label = "held out, after it"
        axes.plot(epochs, curve.held_out, "s-", color=INACTIVE, markersize=3, label=label)
    kept = f"kept: epoch {best_epoch}"
    axes.axvline(best_epoch, color=FAINT, linewidth=1, linestyle=":", label=kept)
    axes.set_xlabel("epoch")
    axes.set_ylabel(curve.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_axes(axes)
    if not curve.log:
        return
    axes.set_yscale("log")
    values = np.array([*curve.train, *curve.held_out])
    if np.nanmax(values) < 10 * np.nanmin(values):
        # Within a decade only the minor ticks say anything.
        plain_number = FuncFormatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(plain_number)
        axes.yaxis.set_minor_formatter(plain_number)
        axes.tick_params(which="minor", labelsize=6, colors="#444444")


def reconstruction_figure(
    images: np.ndarray,
    reconstructions: np.ndarray,
    title: str,
    note: str = "",
    inputs: np.ndarray | None = None,
) -> Figure:
    """Images above their reconstructions, in double rows.

    Args:
        images: ``[n, h, w, c]``, pixels in [0, 1].
        reconstructions: ``[n, h, w, c]``.
        title: of the figure.
        note: one line below the title.
        inputs: ``[n, h, w, c]``, the images that the autoencoder was given where they differ, as
            corrupted ones do; rows are then triple.
    """
    lines = {"image": images}
    if inputs is not None:
        lines["input"] = np.clip(inputs, 0, 1)
    lines["output"] = reconstructions
    columns = min(len(images), 12)
    rows = math.ceil(len(images) / columns)
    width = 0.72 * columns + 0.9
    height = 0.78 * len(lines) * rows + 0.75
    page = Page(width, height)
    page.title(0.02 * width, 0.25, title, size=11)
    page.note(0.02 * width, 0.5, note)
    outer = page.figure.add_gridspec(
        rows,
        1,
        left=0.8 / width,
        right=0.99,
        top=1 - 0.68 / height,
        bottom=0.06 / height,
        hspace=0.1,
    )
    for row in range(rows):
        grid = outer[row].subgridspec(len(lines), columns, wspace=0.06, hspace=0.06)
        first = row * columns
        for line, (name, batch) in enumerate(lines.items()):
            for column, image in enumerate(batch[first : first + columns]):
                axes = page.figure.add_subplot(grid[line, column])
                show_image(axes, image)
                hide_axes(axes)
                if column == 0:
                    style = {"rotation": 0, "ha": "right", "va": "center"}
                    axes.set_ylabel(name, fontsize=7, color=INK, **style)
    return page.figure


def confusion_figure(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix with every count written into it; the colour shows the errors.

    Args:
        confusion: int ``[true, predicted]``.
        classes: names.
        title: of the figure.
    """
    figure = Figure(figsize=(5.6, 5.2), facecolor="white", layout="constrained")
    axes = figure.subplots()
    errors = confusion.astype(float)
    np.fill_diagonal(errors, np.nan)
    ceiling = max(1.0, float(np.nanmax(errors)))
    axes.imshow(errors, cmap="Oranges", vmin=0, vmax=1.6 * ceiling)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            weight = "bold" if row == column else "normal"
            style = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": weight}
            axes.text(column, row, str(count), color=INK, **style)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(length=0)
    return figure
