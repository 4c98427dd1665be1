"""The figure of ``experiments.latent_space`` about the region of the codes; it shows no image."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from experiments.figures.latent_space import most_correlated, panel, write_title
from oipjax.analysis import latent
from oipjax.plots import BLUE, FAINT, INACTIVE, INK

GREEN = "#009E73"
CLASSES = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#8C6D1F",
    "#4D4D4D",
    "#7B4EA3",
    "#9BBF3B",
)
"""Colours of classes."""
FEW = 2000
"""Codes that are drawn one by one."""
HELD_OUT = "held out, given back"
KEY = (
    (INK, HELD_OUT),
    (INACTIVE, "boxes"),
    (FAINT, "normal, no correlations"),
    (BLUE, "fitted normal, normals of classes"),
    (GREEN, "ellipses, ellipsoid"),
)
"""Colours of the generators."""
VALLEYS = (
    ("classes", INACTIVE, "classes of codes"),
    ("codes", BLUE, "codes, groups by k-means"),
    ("fitted normal", INK, "normal, by k-means"),
)
"""Groups whose valleys are drawn: their key among the facts, a colour, and a name."""
OUTLINES = {0.5: "-", 0.9: "--", 0.99: ":"}
"""Shares of the normal that ellipses hold, and the styles of their lines."""
Row = dict[str, Any]
Vectors = dict[str, np.ndarray]


def region(study: Any, vectors: Vectors, rows: list[Row], facts: dict[str, Any]) -> Figure:
    """Where codes lie and how they hang together.

    First row: densities of components, ellipses of pairs, radii beside chi. Second row: variances
    of the axes, distances from codes, images beside real ones. Third row: two projections, and
    valleys between groups.

    Args:
        study: `experiments.latent_space.Study`.
        vectors: of each generator, ``[n, d]``.
        rows: of the table.
        facts: about the region.
    """
    figure = Figure(figsize=(13.2, 12.6), facecolor="white")
    where = f"where {len(study.codes):,} codes lie ({study.images.name})"
    write_title(figure, f"{study.auto.name} \N{MIDDLE DOT} {where}", 0.977)
    edges = {"left": 0.055, "right": 0.985, "top": 0.925, "bottom": 0.048}
    grid = figure.add_gridspec(3, 3, wspace=0.22, hspace=0.34, **edges)
    panels = [figure.add_subplot(grid[number]) for number in range(9)]
    draw_densities(panels[0], study)
    draw_pair(panels[1], study, vectors)
    draw_radii(panels[2], study, vectors)
    draw_spectrum(panels[3], study)
    draw_distances(panels[4], rows)
    draw_quality(panels[5], rows)
    draw_plane(panels[6], study, vectors)
    draw_neighbours(panels[7], study, vectors)
    draw_valleys(panels[8], facts["bodies"])
    return figure


def draw_densities(axes: Axes, study: Any) -> None:
    """Densities of the components, beside the normal."""
    parts = latent.components(study.codes)
    scaled = (study.codes - parts.mean) / parts.std
    edges, densities = latent.histograms(scaled, 60)
    alpha = 0.35 if len(densities) < 50 else 0.12
    style = {"color": BLUE, "alpha": alpha, "linewidth": 0.9}
    for number, density in enumerate(densities):
        name = "each component" if number == 0 else None
        axes.stairs(density, edges, label=name, **style)
    x = np.linspace(-4, 4, 200)
    density = stats.norm.pdf(x)
    axes.plot(x, density, color=INK, linewidth=1.6, label="normal")
    axes.set_xlim(-4, 4)
    title = f"Components, scaled: KS distance at most {parts.distance.max():.2f}"
    panel(axes, title, "standard deviations from the mean", "density")
    axes.legend(fontsize=8, edgecolor="none", loc="upper right")


def draw_pair(axes: Axes, study: Any, vectors: Vectors) -> None:
    """Codes in the plane of two components, with a box's vectors and the ellipses."""
    i, j = most_correlated(study.codes)
    every = max(1, len(study.codes) // 3000)
    name, box = fitting_box(vectors)
    style = {"color": INACTIVE, "markersize": 3, "alpha": 0.5}
    axes.plot(box[:, i], box[:, j], ".", label=name, **style)
    codes = study.codes[::every]
    style = {"color": BLUE, "markersize": 3, "alpha": 0.35}
    axes.plot(codes[:, i], codes[:, j], ".", label="codes", **style)
    for confidence, style in OUTLINES.items():
        ellipse = study.normal.ellipse(i, j, confidence)
        name = f"{100 * confidence:g} %"
        axes.plot(*ellipse.T, style, color=INK, linewidth=1.3, label=name)
    axes.plot(0, 0, "+", color=INK, markersize=10, markeredgewidth=1.6)
    axes.margins(0.12)
    title = "The most correlated pair of components (+: origin)"
    panel(axes, title, f"component {i}", f"component {j}")
    axes.legend(fontsize=8, edgecolor="none", loc="best", framealpha=0.85)


def draw_radii(axes: Axes, study: Any, vectors: Vectors) -> None:
    """Mahalanobis radii of held-out codes and of a box's vectors, beside the chi distribution."""
    dimensions = len(study.normal.mean)
    name, box = fitting_box(vectors)
    box_radii = study.normal.radii(box)
    code_radii = study.normal.radii(study.test_codes)
    largest = max(np.quantile(box_radii, 0.995), latent.radius(0.999, dimensions))
    bins = np.linspace(0, 1.05 * largest, 60)
    style = {"density": True, "alpha": 0.45}
    axes.hist(code_radii, bins, color=BLUE, label="held-out codes", **style)
    axes.hist(box_radii, bins, color=INACTIVE, label=name, **style)
    x = np.linspace(0, bins[-1], 300)
    density = stats.chi.pdf(x, dimensions)
    axes.plot(x, density, color=INK, linewidth=1.6, label=f"chi, {dimensions} dimensions")
    limit = latent.radius(0.99, dimensions)
    axes.axvline(limit, color=INK, linewidth=1, linestyle=":")
    top = axes.get_ylim()[1]
    axes.text(limit, top * 0.97, " 99 %", fontsize=8, va="top", color=INK)
    panel(axes, "Mahalanobis radii", "radius", "density")
    axes.legend(fontsize=8, edgecolor="none", loc="center right")


def draw_spectrum(axes: Axes, study: Any) -> None:
    """Variance along the principal axes, one by one and together."""
    share = study.normal.explained
    number = np.arange(1, len(share) + 1)
    axes.bar(number, 100 * share, color=BLUE, label="one axis")
    mark = "o-" if len(share) < 50 else "-"
    style = {"color": INK, "markersize": 3.5, "linewidth": 1.2}
    axes.plot(number, 100 * share.cumsum(), mark, label="together", **style)
    axes.set_ylim(0, 104)
    panel(axes, "Variance along the principal axes", "axis", "share of the variance (%)")
    axes.legend(fontsize=8, edgecolor="none", loc="center right")


def draw_distances(axes: Axes, rows: list[Row]) -> None:
    """How far vectors are from codes, and how far decoding and encoding moves them."""
    for row in rows:
        colour = colour_of(row["vectors"])
        axes.plot(row["to nearest code"], row["code moved"], "o", color=colour, markersize=7)
    panel(
        axes,
        "Far from the codes, vectors do not come back",
        "median distance to the nearest training code",
        "moved by decode and encode (of codes' spread)",
    )
    draw_key(axes)


def draw_quality(axes: Axes, rows: list[Row]) -> None:
    """Density against coverage."""
    for row in rows:
        colour = colour_of(row["vectors"])
        axes.plot(row["coverage"], row["density"], "o", color=colour, markersize=7)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, None)
    panel(
        axes,
        "Images beside training images",
        "coverage: real images with a made one near",
        "density: real images near a made one",
    )
    draw_key(axes)


def draw_plane(axes: Axes, study: Any, vectors: Vectors) -> None:
    """Codes by class in the plane of the first two principal axes, with a box's vectors."""
    every = max(1, len(study.codes) // FEW)
    deviations = np.sqrt(study.normal.variances[:2])

    def flat(z: np.ndarray) -> np.ndarray:
        return study.normal.to_axes(z)[:, :2] * deviations

    name, box = fitting_box(vectors)
    x, y = flat(box).T
    axes.plot(x, y, ".", color="#c4c4c4", markersize=2.5, label=name)
    marks, names = marks_of(study)
    codes = flat(study.codes[::every])
    draw_points(axes, codes, marks[::every], names)
    angle = np.linspace(0, 2 * np.pi, 100)
    unit_circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    ellipse = latent.radius(0.99, 2) * deviations * unit_circle
    axes.plot(*ellipse.T, ":", color=INK, linewidth=1.3, label="99 %")
    # The legend takes the space to the left.
    axes.set_xlim(-1.9 * ellipse[0, 0], 1.1 * ellipse[0, 0])
    panel(axes, "Along the first two principal axes", "first axis", "second axis")
    space = {"framealpha": 0.85, "handletextpad": 0.1, "borderaxespad": 0.1}
    axes.legend(fontsize=7, edgecolor="none", loc="center left", **space)


def draw_neighbours(axes: Axes, study: Any, vectors: Vectors) -> None:
    """Codes and draws from the fitted normal together by t-SNE.

    Without t-SNE they are drawn along the third and fourth principal axis.
    """
    every = max(1, len(study.codes) // FEW)
    codes = study.codes[::every][:FEW]
    drawn = vectors["fitted normal"][: FEW // 2]
    both = np.concatenate([codes, drawn])
    is_tsne = study.projection == "tsne"
    if is_tsne:
        flat = latent.embed(both, "tsne", study.config.seed)
        panel(axes, "t-SNE, with draws of the fitted normal (grey)", "", "")
    else:
        flat = study.normal.to_axes(both)[:, 2:4]
        title = "Next two axes, with draws of the normal (grey)"
        panel(axes, title, "third axis (std)", "fourth axis (std)")
    x, y = flat[len(codes) :].T
    axes.plot(x, y, ".", color="#b4b4b4", markersize=2.5)
    marks, _ = marks_of(study)
    marks = marks[::every][:FEW]
    draw_points(axes, flat[: len(codes)], marks, ())
    if is_tsne:
        axes.set_xticks([])
        axes.set_yticks([])


def marks_of(study: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """The number of each training code's class, and the names of the classes.

    Without classes they are those of the marked attribute. -1: nothing is known of the image.
    """
    if study.classes is not None:
        return study.classes.astype(int), study.images.classes
    if study.marked is None:
        return np.full(len(study.codes), -1), ()
    table = study.tables[0]
    has = table.has[:, table.names.index(study.marked)]
    marks = np.where(table.known, has.astype(int), -1)
    return marks, (f"not {study.marked}", study.marked)


def draw_points(axes: Axes, flat: np.ndarray, marks: np.ndarray, names: tuple[str, ...]) -> None:
    """Points ``[n, 2]`` in the colours of their classes."""
    unknown = marks < 0
    name = "codes" if unknown.any() else None
    x, y = flat[unknown].T
    axes.plot(x, y, ".", color="#7fb2d6", markersize=2.5, label=name)
    for number in range(marks.max(initial=-1) + 1):
        name = names[number] if number < len(names) else None
        colour = CLASSES[number % len(CLASSES)]
        own = flat[marks == number]
        axes.plot(*own.T, ".", color=colour, markersize=3.5, label=name)


def draw_valleys(axes: Axes, bodies: dict[str, Any]) -> None:
    """The shallowest valley around each group of codes, and of a normal's draws."""
    for key, colour, name in VALLEYS:
        if key not in bodies:
            continue
        depths = bodies[key]["shallowest valley of each group"]
        gain = bodies[key]["gain over one normal"][0]
        order = np.arange(1, len(depths) + 1)
        style = {"color": colour, "markersize": 5, "linewidth": 1.2}
        axes.plot(order, depths, "o-", label=f"{name}: {gain:+.1f} nats", **style)
    axes.set_ylim(-0.03, 1.45)
    axes.set_yticks(np.linspace(0, 1, 6))
    panel(
        axes,
        "Valleys between groups of codes",
        "group, in order",
        "density in its shallowest valley / peak",
    )
    axes.legend(
        fontsize=8,
        edgecolor="none",
        loc="upper left",
        framealpha=0.85,
        title="gain of the groups' normals over one",
        title_fontsize=8,
        alignment="left",
    )


def draw_key(axes: Axes) -> None:
    """The legend of the generators."""
    for colour, name in KEY:
        axes.plot([], [], "o", color=colour, label=name)
    axes.legend(fontsize=8, edgecolor="none", loc="upper left", framealpha=0.85)


def colour_of(name: str) -> str:
    """The colour of a generator."""
    if name.startswith("box"):
        return INACTIVE
    if name.startswith("ellips"):
        return GREEN
    others = {HELD_OUT: INK, "normal, no correlations": FAINT}
    return others.get(name, BLUE)


def fitting_box(vectors: Vectors) -> tuple[str, np.ndarray]:
    """The box whose vectors are as long as codes are, by its name."""
    lengths = {}
    for name, z in vectors.items():
        lengths[name] = np.median(np.linalg.norm(z, axis=1))
    boxes = [name for name in vectors if name.startswith("box")]
    best = min(boxes, key=lambda name: abs(lengths[name] - lengths[HELD_OUT]))
    return best, vectors[best]
