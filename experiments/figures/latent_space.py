"""Figures of ``experiments.latent_space`` that show images."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures.page import Page
from oipjax.analysis import latent
from oipjax.plots import BLUE, FAINT, INACTIVE, INK
from oipjax.training import autoencoder as autoencoding

GREY = "#444444"
"""The colour of the texts at axes."""
WIDE = 13.2
"""Width of a figure, in inches."""
STRIP = 0.516
"""Side of an image in the rows of generators, in inches."""
ROW = STRIP + 0.035
"""Height of such a row."""
CELL = 0.46
"""Side of an image in the walks, in inches."""
TOP = 0.95
"""Where the first row begins, in inches from the top."""
LEFT = 2.45
"""Where the rows begin, in inches from the left."""
MARKS = (11.1, 11.85, 12.55)
"""Where the numbers stand beside the rows, in inches from the left."""
POINTS = 9
"""Images along a side of the plane, and between two codes."""
STEPS = (-6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6)
"""Standard deviations along the principal axes."""
Row = dict[str, Any]
Pictures = dict[str, np.ndarray]
Plane = tuple[tuple[int, int], np.ndarray, np.ndarray]


def images(study: Any, rows: list[Row], pictures: Pictures) -> Figure:
    """The images of each generator's vectors, and walks through the latent space.

    The walks lead along principal axes, through a plane, and from one code to another.

    Args:
        study: `experiments.latent_space.Study`.
        rows: of the table.
        pictures: images ``[16, h, w, c]`` by generator.
    """
    height = study.auto.config.input_shape[0]
    steps, walk = principal(study)
    walked = len(walk) // height
    upper = TOP + len(rows) * ROW
    lines = max(POINTS + 4 + 2, walked)
    page = Page(WIDE, upper + 0.9 + lines * CELL + 0.6)
    title = f"{study.auto.name} \N{MIDDLE DOT} images of latent vectors, by the way they are drawn"
    page.write(0.03 * WIDE, 0.3, title, 15, weight="bold")
    draw_rows(page, rows, pictures)
    low = upper + 0.8
    axes = page.axes(0.95, low, len(steps) * CELL, walked * CELL)
    show(axes, walk)
    names = [f"axis {number + 1}" for number in range(walked)]
    name_images(axes, steps, names, study)
    label(axes, "Along the principal axes from the centre", "standard deviations of the codes")
    draw_plane(page.axes(7.9, low, POINTS * CELL, POINTS * CELL), study)
    between = paths(study)
    count = len(between) // height
    below = low + (POINTS + 2) * CELL
    axes = page.axes(7.9, below, POINTS * CELL, count * CELL)
    show(axes, between)
    shares = [f"{t:.2f}" for t in np.linspace(0, 1, POINTS)]
    name_images(axes, shares, ["line", "arc"] * 2, study)
    label(axes, "Between two held-out codes, twice", "share of the way")
    return page.figure


def draw_rows(page: Page, rows: list[Row], pictures: Pictures) -> None:
    """A row of images for each generator, with numbers beside it."""
    has_confidence = rows[0]["relative"] is not None
    first = "confidence*" if has_confidence else "MSE again*"
    for x, text in zip(MARKS, (first, "density", "coverage"), strict=True):
        page.write(x, 0.77, text, 8.5, FAINT, ha="center")
    y = TOP
    for row in rows:
        name = row["vectors"]
        axes = page.axes(LEFT, y, 16 * STRIP, STRIP)
        show(axes, strip(pictures[name]))
        middle = y + STRIP / 2
        page.write(LEFT - 0.1, middle, name, 9.5, ha="right")
        value = f"{row['relative']:.2f}" if has_confidence else f"{row['again MSE']:.4f}"
        numbers = (value, f"{row['density']:.2f}", f"{row['coverage']:.2f}")
        for x, number in zip(MARKS, numbers, strict=True):
            page.write(x, middle, number, 9.5, ha="center")
        y += ROW
    note = "* squared error after encoding and decoding the image again"
    if has_confidence:
        note = (
            "* mean confidence of the classifier, relative to that in reconstructions "
            "of held-out images"
        )
    page.write(LEFT, y + 0.12, note, 8, FAINT)


def draw_plane(axes: Axes, study: Any) -> None:
    """The images of a plane through the latent space."""
    pair, values, picture = plane(study)
    show(axes, picture)
    ticks = [f"{value:.1f}" for value in values]
    name_images(axes, ticks, ticks[::-1], study)
    title = "Through the plane of two coordinates, the others at the centre"
    label(axes, title, f"component {pair[0]}")
    axes.set_ylabel(f"component {pair[1]}", fontsize=8.5, color=GREY)


def attributes(study: Any, rows: list[Row], count: int = 8) -> Figure:
    """Held-out images moved along attribute vectors, and how well all attributes are read.

    Args:
        study: `experiments.latent_space.Study`.
        rows: of the attributes' table, the best first.
        count: attributes that are shown.
    """
    figure = Figure(figsize=(WIDE, 0.72 * count + 1.5), facecolor="white")
    title = f"{study.auto.name} \N{MIDDLE DOT} held-out images along attribute vectors"
    write_title(figure, title, 0.955)
    edges = {"left": 0.125, "right": 0.725, "top": 0.88, "bottom": 0.09}
    grid = figure.add_gridspec(1, 2, wspace=0.04, **edges)
    names = [row["attribute"] for row in rows[:count]]
    for column in range(2):
        draw_moved(figure.add_subplot(grid[column]), study, names, column)
    draw_areas(figure.add_axes((0.825, 0.09, 0.16, 0.79)), rows)
    return figure


def draw_moved(axes: Axes, study: Any, names: list[str], number: int) -> None:
    """A held-out image, moved along the vectors of some attributes."""
    table = study.tables[0]
    codes = study.codes[table.known]
    steps = np.linspace(-1.5, 1.5, 7)
    strips = []
    for name in names:
        has = table.has[table.known, table.names.index(name)]
        vector = latent.attribute(codes, has)
        moved = study.test_codes[number] + steps[:, None] * vector
        strips.append(strip(autoencoding.decode(study.auto, moved)))
    show(axes, np.concatenate(strips))
    name_images(axes, [f"{step:+.1f}" for step in steps], names, study)
    label(axes, f"Image {number + 1} (0: its reconstruction)", "times the attribute vector")
    axes.tick_params(labelleft=number == 0)


def draw_areas(axes: Axes, rows: list[Row]) -> None:
    """How well all attributes are read, the best on top."""
    order = range(len(rows))[::-1]
    along_vector = [row["AUC along the vector"] for row in rows]
    along_fisher = [row["AUC along Fisher's direction"] for row in rows]
    errors = [row["its standard error"] for row in rows]
    style = {"fmt": "o", "color": BLUE, "markersize": 4, "linewidth": 1}
    axes.errorbar(along_vector, order, xerr=errors, label="the vector", **style)
    style = {"color": INACTIVE, "markersize": 4}
    axes.plot(along_fisher, order, "o", label="Fisher's direction", **style)
    axes.axvline(0.5, color=INK, linewidth=1, linestyle=":")
    axes.set_yticks(order, [row["attribute"] for row in rows])
    panel(axes, "Read from held-out codes", "AUC (0.5: chance)", "")
    axes.tick_params(axis="y", labelsize=6.5)
    axes.legend(fontsize=7, edgecolor="none", loc="lower right", framealpha=0.85)


def principal(study: Any, axes: int = 14) -> tuple[list[str], np.ndarray]:
    """Steps, and one picture: a row for each of the first principal axes."""
    steps = np.array(STEPS, float)
    units = np.eye(len(study.normal.mean))[:axes]
    scores = units[:, None] * steps[None, :, None]
    vectors = study.normal.from_axes(scores.reshape(-1, units.shape[1]))
    decoded = autoencoding.decode(study.auto, vectors)
    rows = [strip(row) for row in np.split(decoded, len(units))]
    return [f"{step:g}" for step in steps], np.concatenate(rows)


def plane(study: Any, points: int = POINTS) -> Plane:
    """The plane of the two most correlated components.

    Returns:
        The numbers of the components, the values of both, and one picture
        ``[points * h, points * w, c]``.
    """
    pair = most_correlated(study.codes)
    reach = 1.6 * np.abs(study.codes[:, pair]).max()
    values = np.linspace(-reach, reach, points)
    vectors = np.tile(study.normal.mean, (points * points, 1))
    vectors[:, pair[0]] = np.tile(values, points)
    vectors[:, pair[1]] = np.repeat(values[::-1], points)
    decoded = autoencoding.decode(study.auto, vectors)
    rows = [strip(row) for row in np.split(decoded, points)]
    return pair, values, np.concatenate(rows)


def paths(study: Any) -> np.ndarray:
    """Straight lines and arcs about the centre for two pairs of codes of different classes."""
    t = np.linspace(0, 1, POINTS)
    codes = study.test_codes
    classes = np.arange(len(codes))
    if study.test_classes is not None:
        classes = study.test_classes.astype(int)
    rows = []
    for first in np.flatnonzero(np.diff(classes))[:3:2]:
        a = codes[first]
        b = codes[first + 1]
        line = latent.interpolate(a, b, t)
        arc = latent.spherical(a, b, t, study.normal.mean)
        rows.append(strip(autoencoding.decode(study.auto, line)))
        rows.append(strip(autoencoding.decode(study.auto, arc)))
    return np.concatenate(rows)


def most_correlated(codes: np.ndarray) -> tuple[int, int]:
    """The pair of components with the greatest absolute correlation."""
    size = np.abs(latent.correlations(codes))
    np.fill_diagonal(size, 0)
    i, j = np.unravel_index(size.argmax(), size.shape)
    return int(i), int(j)


def strip(images: np.ndarray) -> np.ndarray:
    """Images ``[n, h, w, c]`` side by side."""
    return np.concatenate(list(images), 1)


def show(axes: Axes, picture: np.ndarray) -> None:
    """A picture ``[h, w, c]`` that fills the axes, without a frame."""
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def name_images(axes: Axes, columns: list[str], rows: list[str], study: Any) -> None:
    """Names of the columns of images below, and of the rows, from the top, to the left."""
    height, width, _ = study.auto.config.input_shape
    axes.set_xticks((np.arange(len(columns)) + 0.5) * width - 0.5, columns)
    axes.set_yticks((np.arange(len(rows)) + 0.5) * height - 0.5, rows)
    axes.tick_params(labelsize=8, colors=GREY, length=0)


def label(axes: Axes, title: str, below: str) -> None:
    """A title, and a text below the axes."""
    axes.set_title(title, fontsize=10, fontweight="bold", color=INK, loc="left", pad=5)
    axes.set_xlabel(below, fontsize=8.5, color=GREY)


def panel(axes: Axes, title: str, below: str, beside: str) -> None:
    """A title, texts at both axes, and a faint grid."""
    label(axes, title, below)
    axes.set_ylabel(beside, fontsize=8.5, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=GREY)


def write_title(figure: Figure, text: str, y: float) -> None:
    """The title of a figure."""
    figure.text(0.03, y, text, fontsize=15, fontweight="bold", color=INK, va="center")
