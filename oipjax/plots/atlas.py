"""Arrays in, matplotlib figures out. Nothing is read, printed or saved here."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from oipjax.study import DEAD, FOUND, Atlas

A4 = (8.27, 11.69)
INK, FAINT, INACTIVE, BLUE = "#1a1a1a", "#8a8a8a", "#D55E00", "#0072B2"
"""Text, secondary text, and two colours of Okabe and Ito's palette, which colour-blind people can
tell apart."""


def atlas_figure(atlas: Atlas, caption: str = "") -> Figure:
    """Every map's best image with index and score on an A4 page; silent and dead maps are marked.

    Args:
        atlas: the maps.
        caption: a line about how they were found.
    """
    margin, head, foot, label = 0.3, 0.72, 0.32, 0.15
    width, height = A4[0] - 2 * margin, A4[1] - head - foot
    columns, cell = _grid(len(atlas.maps), width, height, label)
    rows = math.ceil(len(atlas.maps) / columns)
    height = rows * (cell * 1.06 + label)
    figure = Figure(figsize=(A4[0], head + height + foot), facecolor="white")
    raster = _Raster(atlas.images.shape[2:4], cell, 0.06 * cell + label, width / columns - cell)
    left = margin + (width - (columns - 1) * raster.across - cell) / 2
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, A4[0]), ylim=(head + height + foot, 0))
    axes.set_axis_off()
    counts = atlas.counts
    title = f"{atlas.model} \N{MIDDLE DOT} {atlas.layer}: {counts['found']} of {counts['maps']} maps found"
    title += f", {counts['dead']} proved dead" if counts["dead"] else ""
    axes.text(margin, 0.36, title, fontsize=13, color=INK, fontweight="bold")
    axes.text(margin, 0.57, caption, fontsize=7.5, color=FAINT)
    size = min(8.0, max(4.2, 72 * cell / 11))
    for position, number in enumerate(atlas.maps):
        row, column = divmod(position, columns)
        x, y = left + column * raster.across, head + row * raster.down
        status = int(atlas.status[position])
        if status == FOUND:
            raster.panels[row, column] = contrast(atlas.images[position, 0], 2.0)
            score = _number(atlas.scores[position, 0])
            if np.isfinite(atlas.achieved[position]) and cell > 0.45:
                score += f" \N{MIDDLE DOT} {_percent(atlas.achieved[position])}"
        else:
            dark = status == DEAD
            axes.add_patch(
                Rectangle(
                    (x, y), cell, cell, facecolor="#4d4d4d" if dark else "#f4f4f4", edgecolor="#bbbbbb",
                    hatch="" if dark else "////", linewidth=0.5,
                )
            )  # fmt: skip
            text = "dead" if dark else "silent"
            face = {"facecolor": "#4d4d4d" if dark else "white", "edgecolor": "none", "pad": 1.2}
            ink = "white" if dark else INACTIVE
            axes.text(
                x + cell / 2,
                y + cell / 2,
                text,
                fontsize=size,
                color=ink,
                ha="center",
                va="center",
                bbox=face,
            )
            bound = atlas.bound[position]
            score = (
                ""
                if dark or not np.isfinite(bound)
                else f"\N{LESS-THAN OR EQUAL TO} {_number(bound)}"
            )
        base = y + cell + label * 0.68
        axes.text(
            x,
            base,
            str(number),
            fontsize=size,
            color=INK if status == FOUND else INACTIVE,
            fontweight="bold",
        )
        axes.text(x + cell, base, score, fontsize=size, color=FAINT, ha="right")
    raster.draw(axes, left, head)
    legend = "Below: the map's index and score (mean activation)"
    legend += (
        ", and % of its proved upper limit."
        if np.isfinite(atlas.achieved).any() and cell > 0.45
        else "."
    )
    if counts["unresolved"]:
        legend += "  Hatched: none found."
    if counts["dead"]:
        legend += "  Dark: proved dead."
    axes.text(margin, head + height + foot * 0.55, legend, fontsize=6.5, color=FAINT)
    axes.set_xlim(0, A4[0])
    axes.set_ylim(head + height + foot, 0)
    axes.set_aspect("auto")
    return figure


class _Raster:
    """Square panels in rows and columns that are drawn as one image, gaps included: a hundred images take long to draw.

    Args:
        shape: height and width of each panel's image, in pixels.
        cell: side of a panel.
        below, beside: at most so much is left between panels.
    """

    FINE = 24
    """Pixels are repeated until a panel has so many along each side, and gaps a fitting number."""

    def __init__(self, shape: tuple[int, ...], cell: float, below: float, beside: float):
        self.times = [math.ceil(self.FINE / size) for size in shape]
        self.size = [size * times for size, times in zip(shape, self.times, strict=True)]
        self.steps = [
            size + int(gap / cell * size)
            for size, gap in zip(self.size, (below, beside), strict=True)
        ]
        self.down, self.across = (
            cell * step / size for step, size in zip(self.steps, self.size, strict=True)
        )
        self.panels: dict[tuple[int, int], np.ndarray] = {}

    def draw(self, axes: Axes, left: float, top: float) -> None:
        """Draw the ``panels``, ``{(row, column): [h, w] or [h, w, 3]}`` in [0, 1]."""
        if not self.panels:
            return
        rows, columns = (1 + max(place[axis] for place in self.panels) for axis in (0, 1))
        image = np.zeros((rows, self.steps[0], columns, self.steps[1], 4), np.uint8)
        for (row, column), panel in self.panels.items():
            place = image[row, : self.size[0], column, : self.size[1]]
            large = np.round(255 * panel.reshape(*panel.shape[:2], -1)).repeat(self.times[0], 0)
            place[..., :3], place[..., 3] = large.repeat(self.times[1], 1), 255
        extent = (left, left + columns * self.across, top + rows * self.down, top)
        axes.imshow(
            image.reshape(rows * self.steps[0], -1, 4), extent=extent, interpolation="nearest"
        )


def warm_up() -> None:
    """Read fonts and what else a first picture takes; e.g. from another thread, while there is nothing to draw yet."""
    figure = Figure()
    figure.text(0.5, 0.5, "0", fontweight="bold")
    figure.text(0.5, 0.5, "0")
    figure.savefig(io.BytesIO(), format="png")


def oip_figure(
    title: str,
    steps: Sequence[int],
    images: np.ndarray,
    scores: np.ndarray,
    changes: np.ndarray,
    note: str = "",
) -> Figure:
    """How one pattern evolves: images at the recorded steps, plain and contrast-enhanced, the curve, and a table.

    Args:
        title: of the figure.
        steps: ``[t]``.
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
    spread = float(
        np.abs(images - images.mean((1, 2, 3), keepdims=True)).max() / max(images.std(), 1e-9)
    )
    for row, (name, limit) in enumerate((("plain", spread), ("enhanced", 1.5))):
        for column in range(count):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(
                contrast(images[column], limit),
                cmap="gray",
                vmin=0,
                vmax=1,
                interpolation="nearest",
            )
            _bare(axes)
            if row == 0:
                axes.set_title(f"step {steps[column]}", fontsize=9, color=INK, pad=4)
            if column == 0:
                axes.set_ylabel(name, fontsize=9, color=INK)
    split = max(1, round(count * 0.56))
    axes = figure.add_subplot(grid[2, :split])
    axes.plot(np.maximum(steps, 0), scores, "o-", color=BLUE, markersize=4, linewidth=1.5)
    axes.set_xscale("symlog", linthresh=max(1, steps[1] if count > 1 else 1), linscale=0.4)
    axes.set_xticks(list(steps), [str(step) for step in steps])
    axes.minorticks_off()
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("score (mean activation)", fontsize=9)
    _plain_axes(axes)
    table = figure.add_subplot(grid[2, split:] if split < count else grid[2, :])
    table.set_axis_off()
    if split < count:
        cells = [
            [str(s), _number(v), f"{c:+.3g}"]
            for s, v, c in zip(steps, scores, changes, strict=True)
        ]
        drawn = table.table(
            cells, colLabels=["step", "score", "change per step"], loc="center right", cellLoc="right", colLoc="right",
            colWidths=[0.2, 0.3, 0.4], edges="horizontal",
        )  # fmt: skip
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(9)
        drawn.scale(1, min(1.5, 11 / (count + 1)))
        for cell in drawn.get_celld().values():
            cell.set_edgecolor("#d0d0d0")
    return figure


def history_figure(history: Sequence[Any], best_epoch: int, title: str) -> Figure:
    """Training curves: loss and accuracy, or squared error, per epoch, the kept epoch marked.

    Args:
        history: `Epoch` or `ReconstructionEpoch` items, as trainings leave them.
        best_epoch: number of the epoch that was kept.
        title: of the figure.
    """
    accuracy = hasattr(history[0], "train_accuracy")
    panels = [
        (
            "loss",
            "loss",
            "cross-entropy (nats)" if accuracy else "binary cross-entropy of pixels (nats)",
        )
    ]
    if accuracy:
        panels.append(("train_accuracy", "accuracy", "accuracy (%)"))
    elif any(epoch.loss != epoch.train_mse for epoch in history):
        panels.append(("train_mse", "mse", "mean squared error of pixels"))
    else:
        panels = [("train_mse", "mse", "mean squared error of pixels")]
    figure = Figure(
        figsize=(9.0 if len(panels) == 2 else 6.0, 3.6), facecolor="white", layout="constrained"
    )
    figure.suptitle(
        title, fontsize=min(11, 128 * figure.get_figwidth() / len(title)), color=INK
    )  # in one line
    number = [epoch.epoch for epoch in history]
    drawn = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (train_name, name, label) in zip(drawn, panels, strict=True):
        scale = 100 if name == "accuracy" else 1
        train = [scale * getattr(epoch, train_name) for epoch in history]
        held = [scale * getattr(epoch, f"validation_{name}") for epoch in history]
        axes.plot(number, train, "o-", color=BLUE, markersize=3, label="training, during the epoch")
        if not all(map(math.isnan, held)):
            axes.plot(number, held, "s-", color=INACTIVE, markersize=3, label="held out, after it")
        axes.axvline(
            best_epoch, color=FAINT, linewidth=1, linestyle=":", label=f"kept: epoch {best_epoch}"
        )
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _plain_axes(axes)
        if name != "accuracy":
            axes.set_yscale("log")
        if not accuracy:  # less than a decade, as a rule
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.tick_params(which="minor", labelsize=6, colors="#444444")
    drawn[-1].legend(fontsize=8, frameon=False)
    return figure


def reconstruction_figure(
    images: np.ndarray,
    reconstructions: np.ndarray,
    title: str,
    note: str = "",
    seen: np.ndarray | None = None,
) -> Figure:
    """Images above what an autoencoder gives back of them, in double rows; or in triple ones, if it saw others.

    Args:
        images: ``[n, h, w, c]``, pixels in [0, 1].
        reconstructions: ``[n, h, w, c]``.
        title: of the figure.
        note: one line below the title.
        seen: ``[n, h, w, c]``, what the autoencoder saw instead of the images.
    """
    batches = [("image", images), ("given back", reconstructions)]
    if seen is not None:
        batches.insert(1, ("seen", np.clip(seen, 0, 1)))
    columns, lines = min(len(images), 12), len(batches)
    rows = math.ceil(len(images) / columns)
    height = 0.78 * lines * rows + 0.75
    figure = Figure(figsize=(0.72 * columns + 0.9, height), facecolor="white")
    figure.text(
        0.02, 1 - 0.25 / height, title, fontsize=11, fontweight="bold", color=INK, va="center"
    )
    figure.text(0.02, 1 - 0.5 / height, note, fontsize=8, color=FAINT, va="center")
    outer = figure.add_gridspec(
        rows,
        1,
        left=0.8 / (0.72 * columns + 0.9),
        right=0.99,
        top=1 - 0.68 / height,
        bottom=0.06 / height,
        hspace=0.1,
    )
    for row in range(rows):
        grid = outer[row].subgridspec(lines, columns, wspace=0.06, hspace=0.06)
        for line, (name, batch) in enumerate(batches):
            for column, image in enumerate(batch[row * columns : (row + 1) * columns]):
                axes = figure.add_subplot(grid[line, column])
                axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                _bare(axes)
                if column == 0:
                    axes.set_ylabel(
                        name, fontsize=7, color=INK, rotation=0, ha="right", va="center"
                    )
    return figure


def confusion_figure(confusion: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix ``int [true, predicted]`` with every count written into it; the colour shows the errors."""
    figure = Figure(figsize=(5.6, 5.2), facecolor="white", layout="constrained")
    axes = figure.subplots()
    errors = confusion.astype(float)
    np.fill_diagonal(errors, np.nan)
    ceiling = max(1.0, float(np.nanmax(errors)))
    axes.imshow(errors, cmap="Oranges", vmin=0, vmax=1.6 * ceiling)
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            weight = "bold" if row == column else "normal"
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                fontsize=8,
                color=INK,
                fontweight=weight,
            )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(length=0)
    return figure


def contrast(image: np.ndarray, spread: float) -> np.ndarray:
    """An image ``[h, w, c]`` for display: mean to mid-grey, ``spread`` standard deviations to black and white.

    Returns:
        ``[h, w]`` for one channel, ``[h, w, 3]`` otherwise (the first three channels), in [0, 1].
    """
    image = np.asarray(image, np.float64)
    image = image - image.mean()
    scaled = np.clip(0.5 + image / (2 * spread * max(float(image.std()), 1e-9)), 0, 1)
    if image.shape[2] == 1:
        return scaled[..., 0]
    return np.pad(scaled[..., :3], ((0, 0), (0, 0), (0, max(0, 3 - image.shape[2]))))


def _grid(count: int, width: float, height: float, label: float) -> tuple[int, float]:
    """Columns, and side of a cell in inches, that use the page best; cells are at most 1.5 inches."""
    best = (1, 0.0)
    for columns in range(1, count + 1):
        cell = min(
            0.92 * width / columns, (height / math.ceil(count / columns) - label) / 1.06, 1.5
        )
        if cell > best[1]:
            best = (columns, cell)
    return best


def _percent(share: float) -> str:
    """A share of a bound, never rounded up to the whole."""
    digits = 1 if share >= 0.995 else 0
    return f"{min(100 * share, 99.9 if share < 1 else 100):.{digits}f}%"


def _number(value: float) -> str:
    """Three significant digits without an exponent where that is short."""
    value = float(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(2 - magnitude, 0), 4)}f}" if -3 <= magnitude < 6 else f"{value:.1e}"


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _plain_axes(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#444444")
