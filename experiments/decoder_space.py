"""Which patterns do maps have among the images that a decoder can make?

Question: a map's pattern is searched among the images of an autoencoder's decoder, with latent
vectors like the codes of digits. How much of the score in pixel space is left, and how does that
compare with the best real digit? Do the patterns look like digits, to the eye, to the network and
by their distance to real ones?
Expected: the decoder's patterns score below those of the box of pixels and above the best of 1,000
digits for nearly all maps. They lie several times nearer to real digits than the box's patterns,
and the network is surer of them.
Cost: about 2 minutes of two cores.
Command: python -m experiments.decoder_space
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, progress_line, save, show, words
from oipjax.cli.options import SpaceOptions
from oipjax.data import mnist as data
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.spaces import Space, standardise
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
SPACES = ("standardised", "box", "decoder")
SOURCES = {
    "standardised": "standardised",
    "box": "box",
    "decoder": "decoder",
    "digit": "best digit",
}
"""The sources of images in the figure, and their names."""
COLUMNS = [
    "map",
    "box",
    "decoder / box",
    "digit / box",
    "decoder / digit",
    "standardised decoder",
    "standardised digit",
]
BATCH = 100
"""Images that the network takes at once."""
SURE = 0.9
"""The network is sure of a class if its probability is at least this."""
DISTANCE = "distance to the nearest digit, quartiles"
Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Config:
    """The atlases that are compared, and the size of the figure.

    Attributes:
        checkpoint: the network.
        autoencoder: the autoencoder of the decoder.
        layer: the layer.
        maps: indices of its maps; None: all.
        draws: random starts of each survey.
        keep: patterns of each map.
        steps: of each ascent.
        shown: maps in the figure.
        seed: of the starts.
    """

    checkpoint: str = "mnist-cnn"
    autoencoder: str = "mnist-autoencoder"
    layer: str = "conv3"
    maps: tuple[int, ...] | None = None
    draws: int = 4096
    keep: int = 4
    steps: int = 100
    shown: int = 14
    seed: int = 0


SMOKE = Config(maps=(3, 60, 120), draws=64, keep=2, steps=4, shown=3)


def find(config: Config, model: oipjax.Model, name: str, space: Space) -> oipjax.Atlas:
    """One space's atlas. Unresolved maps get no further starts, and no bounds are computed."""
    return oipjax.atlas(
        jax.random.key(config.seed),
        model,
        config.layer,
        maps=config.maps,
        draws=config.draws,
        keep=config.keep,
        steps=config.steps,
        search=0,
        bounds="none",
        space=space,
        progress=progress_line(name),
    )


def responses(model: oipjax.Model, layer: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The network's responses to its inputs ``[n, h, w, c]``.

    Returns:
        The scores of all maps ``[n, k]``, and the probabilities of the classes ``[n, 10]``.
    """

    @jax.jit
    def apply(params, inputs):
        activations = model.apply(params, inputs)
        scores = activations[layer].mean((1, 2))
        return scores, jax.nn.softmax(activations[model.layers[-1]])

    scores = []
    classes = []
    for first in range(0, len(images), BATCH):
        own_scores, own_classes = apply(model.params, images[first : first + BATCH])
        scores.append(np.asarray(own_scores))
        classes.append(np.asarray(own_classes))
    return np.concatenate(scores), np.concatenate(classes)


def scores_on_sphere(model: oipjax.Model, layer: str, images: np.ndarray) -> np.ndarray:
    """The scores ``[n, k]`` of all maps for images that are standardised first."""
    standardised = np.asarray(jax.vmap(standardise)(jnp.asarray(images)))
    scores, _ = responses(model, layer, standardised)
    return scores


def distances(
    model: oipjax.Model, images: np.ndarray, digits: np.ndarray, *, leave_out_self: bool = False
) -> np.ndarray:
    """Distance ``[n]`` to the nearest digit, the root mean square of the difference of pixels.

    Args:
        model: its input box is scaled to [0, 1].
        images: network inputs ``[n, h, w, c]``.
        digits: network inputs ``[m, h, w, c]``.
        leave_out_self: the images are the digits; each is compared with the others.
    """
    low, high = model.input_box

    def flat(x: np.ndarray) -> np.ndarray:
        pixels = (x - low) / (high - low)
        return pixels.reshape(len(x), -1).astype(np.float64)

    a = flat(images)
    b = flat(digits)
    own_squares = (a**2).mean(1)[:, None]
    digit_squares = (b**2).mean(1)[None]
    squares = own_squares + digit_squares - 2 * a @ b.T / a.shape[1]
    if leave_out_self:
        np.fill_diagonal(squares, np.inf)
    return np.sqrt(np.maximum(squares.min(1), 0))


def quartiles(values: Any) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return np.percentile(values, (25, 50, 75)).tolist()


def measure(config: Config, model: oipjax.Model) -> tuple[Facts, Arrays]:
    """Facts, and the images of each source ``[k, h, w, c]`` for the maps found in all spaces."""
    # All spaces are made before the first search, so that wrong options are reported at once.
    spaces = {name: SpaceOptions(name, config.autoencoder).of(model) for name in SPACES}
    atlases = {}
    for name, space in spaces.items():
        atlases[name] = find(config, model, name, space)
    print()
    digits = model.to_input(data.sample().images)
    digit_scores, _ = responses(model, config.layer, digits)
    maps = atlases["box"].maps
    found = digit_scores[:, maps].max(0) > 0
    for atlas in atlases.values():
        found &= atlas.status == FOUND
    if not found.any():
        raise ValueError(
            f"no map of {config.layer} is found in all spaces and responds to a digit; "
            "choose other --maps"
        )
    chosen = maps[found]
    pictures = {}
    best = {}
    for name, atlas in atlases.items():
        pictures[name] = atlas.images[found, 0]
        best[name] = atlas.scores[found, 0]
    pictures["digit"] = digits[digit_scores[:, chosen].argmax(0)]
    best["digit"] = digit_scores[:, chosen].max(0)
    shares = compare(config, model, chosen, best, pictures["decoder"], digits)
    rows = []
    for number, index in enumerate(chosen):
        numbers = (best["box"], *shares.values())
        own = [float(values[number]) for values in numbers]
        rows.append([int(index), *own])
    facts = {
        "maps found": {name: atlas.counts["found"] for name, atlas in atlases.items()},
        "maps compared": len(chosen),
        "shares, quartiles": {name: quartiles(values) for name, values in shares.items()},
        "decoder above the best digit": int(np.sum(shares["decoder / digit"] > 1)),
        "looks": appearances(model, config.layer, pictures, digits),
        "columns": COLUMNS,
        "rows": rows,
    }
    return facts, pictures


def compare(
    config: Config,
    model: oipjax.Model,
    chosen: np.ndarray,
    best: Arrays,
    decoded: np.ndarray,
    digits: np.ndarray,
) -> Arrays:
    """Scores as shares of others, for each map.

    The sphere of standardised images holds other images than the box. To compare with it, images
    are standardised and scored again.

    Args:
        config: names the layer.
        model: the network.
        chosen: indices of the maps ``[k]``.
        best: scores ``[k]`` by source.
        decoded: the decoder's images ``[k, h, w, c]``.
        digits: all digits.
    """
    layer = config.layer
    rows = np.arange(len(chosen))
    decoder_on_sphere = scores_on_sphere(model, layer, decoded)[rows, chosen]
    digit_on_sphere = scores_on_sphere(model, layer, digits)[:, chosen].max(0)
    return {
        "decoder / box": best["decoder"] / best["box"],
        "digit / box": best["digit"] / best["box"],
        "decoder / digit": best["decoder"] / best["digit"],
        "standardised decoder / standardised": decoder_on_sphere / best["standardised"],
        "standardised digit / standardised": digit_on_sphere / best["standardised"],
    }


def appearances(
    model: oipjax.Model, layer: str, pictures: Arrays, digits: np.ndarray
) -> dict[str, Facts]:
    """Whether the images of each source look like digits: to the network, and by their distance."""
    facts = {}
    for name, images in (*pictures.items(), ("all digits", digits)):
        _, classes = responses(model, layer, images)
        confidence = classes.max(1)
        # Standardised images have no pixels in [0, 1], so they have no distance to a digit.
        distance = None
        if name not in ("standardised", "digit"):
            is_digits = name == "all digits"
            distance = quartiles(distances(model, images, digits, leave_out_self=is_digits))
        facts[name] = {
            "confidence, mean": float(confidence.mean()),
            "sure (0.9) of a class": float(np.mean(confidence >= SURE)),
            DISTANCE: distance,
        }
    return facts


def plot(config: Config, model: oipjax.Model, facts: Facts, pictures: Arrays) -> Figure:
    """The same maps' patterns in the three spaces beside the best digit, and their scores."""
    rows = facts["rows"]
    order = np.argsort([row[2] for row in rows])
    places = np.linspace(0, len(order) - 1, config.shown)
    order = order[np.unique(places.round().astype(int))]
    figure = Figure(figsize=(13.2, 7.6), facecolor="white")
    network = f"{config.checkpoint} \N{MIDDLE DOT} {config.layer}"
    title = f"{network}: the patterns of maps among a decoder's images"
    figure.text(0.03, 0.965, title, fontsize=15, fontweight="bold", color=INK, va="center")
    note = (
        "Columns: maps at equal steps of the ranking by decoder / box. "
        "Below: score as a share of the box's. "
        "Standardised images are drawn by contrast, others from black to white."
    )
    figure.text(0.03, 0.93, note, fontsize=9, color=FAINT, va="center")
    edges = {"left": 0.1, "right": 0.985, "top": 0.88, "bottom": 0.36}
    gaps = {"hspace": 0.25, "wspace": 0.08}
    grid = figure.add_gridspec(len(SOURCES), len(order), **edges, **gaps)
    for line, name in enumerate(SOURCES):
        for column, index in enumerate(order):
            axes = figure.add_subplot(grid[line, column])
            draw_image(axes, model, name, pictures[name][index], rows[index])
            if line == 0:
                axes.set_title(f"map {rows[index][0]}", fontsize=8.5, color=INK, pad=4)
            if column == 0:
                place = {"transform": axes.transAxes, "ha": "right", "va": "center"}
                axes.text(-0.15, 0.5, SOURCES[name], fontsize=10, color=INK, **place)
    edges = {"left": 0.07, "right": 0.985, "top": 0.265, "bottom": 0.075}
    panels = figure.add_gridspec(1, 2, wspace=0.16, **edges)
    in_box = figure.add_subplot(panels[0])
    draw_shares(in_box, rows, (2, 3), "Share of the score in the box that is left")
    on_sphere = figure.add_subplot(panels[1])
    draw_shares(on_sphere, rows, (5, 6), "Share that is left on the sphere of standardised images")
    return figure


def draw_image(
    axes: Axes, model: oipjax.Model, name: str, image: np.ndarray, row: list[Any]
) -> None:
    """One image, with its score as a share of the box's below."""
    if name == "standardised":
        drawn = contrast(image, 2.0)
    else:
        low, high = model.input_box
        drawn = ((image - low) / (high - low))[..., 0]
    axes.imshow(drawn, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    shares = {"box": 1.0, "decoder": row[2], "digit": row[3]}
    text = f"{shares[name]:.2f}" if name in shares else ""
    axes.set_xlabel(text, fontsize=8, color=INK, labelpad=2)


def draw_shares(axes: Axes, rows: list[list[Any]], columns: tuple[int, int], title: str) -> None:
    """The distributions of two shares over the maps: the decoder's, and the best digit's."""
    styles = ((BLUE, "decoder"), (INACTIVE, "best of 1,000 digits"))
    for column, (colour, name) in zip(columns, styles, strict=True):
        shares = np.sort([row[column] for row in rows])
        maps = 100 * np.arange(1, len(shares) + 1) / len(shares)
        label = f"{name}: median {np.median(shares):.2f}"
        axes.step(shares, maps, where="post", color=colour, label=label)
    axes.set_xlim(0, None)
    words(axes, title, "share of the best score found there", "maps with no more (%)")
    axes.legend(fontsize=8, loc="best", edgecolor="none", framealpha=1)


def report(facts: Facts) -> None:
    """Print the tables."""
    cells = [[name, *values] for name, values in facts["shares, quartiles"].items()]
    columns = ["", "lower quartile", "median", "upper quartile"]
    show("score of the same maps", columns, cells)
    names = ["confidence, mean", "sure (0.9) of a class"]
    cells = []
    for source, look in facts["looks"].items():
        quarters = look[DISTANCE]
        median = None if quarters is None else quarters[1]
        cells.append([source, *(look[name] for name in names), median])
    columns = ["", *names, "median distance to the nearest digit"]
    show("do they look like digits?", columns, cells)
    count = facts["maps compared"]
    above = facts["decoder above the best digit"]
    print(
        f"found {facts['maps found']}; the decoder's pattern scores above the best digit "
        f"for {above} of {count} maps"
    )


def main(config: Config = Config(), results: Path = RESULTS) -> Facts:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    facts, pictures = measure(config, model)
    report(facts)
    content = {"config": asdict(config), **facts}
    save(results, "decoder_space", content, plot(config, model, facts, pictures))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
