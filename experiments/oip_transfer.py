"""Is an OIP a property of the network or of the data?

Question: what score does a map's OIP, made in one network, get from the partner of that map in a
    network of another
seed, as a share of the score of the partner's own OIP? Beside it: the best of 1,000 digits, the
digit that the first network's map likes best, and the OIPs of maps that are no partners.
Expected: far more than an OIP of another map, less than the partner's own: about as much as the
    best digit. The better
the partners' activations agree on digits, the more of the score is kept.
Cost: about 2 minutes of two cores for two networks.
Command: python -m experiments.oip_transfer (more networks: --networks mnist-cnn FOLDER FOLDER ...)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy import stats

import oipjax
from experiments.common import command, save, show, words
from oipjax.analysis import correlations, match
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.pytrees import fingerprint
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
PARTNER, DIGIT, ITS_DIGIT, OTHER = (
    "OIP of the partner",
    "best digit",
    "best digit of the partner",
    "OIP of another map",
)
COLOURS = {PARTNER: BLUE, DIGIT: "#009E73", ITS_DIGIT: "#CC79A7", OTHER: INACTIVE}


@dataclass(frozen=True)
class Config:
    """Networks as `oipjax.load` takes them; OIPs are of the ``space`` and digits are brought into it."""

    networks: tuple[str, ...] = ("mnist-cnn", "mnist-cnn-seed1")
    layer: str = "conv3"
    space: str = "standardised"
    draws: int = 4096
    steps: int = 100
    rows: int = 8
    seed: int = 0

    def __post_init__(self):
        if len(self.networks) < 2:
            raise ValueError(
                f"expected two or more networks, got {self.networks}; name a second checkpoint"
            )


SMOKE = Config(("mnist-cnn", "mnist-cnn-seed1"), "conv1", draws=64, steps=3, rows=2)


@dataclass(frozen=True, eq=False)
class Network:
    """A network with its OIPs ``[k, h, w, c]``, their scores ``[k]``, and its maps' scores of digits ``[n, k]``."""

    model: Model
    images: np.ndarray
    scores: np.ndarray
    found: np.ndarray
    digits: np.ndarray


def scores_of(model: Model, layer: str, images: np.ndarray) -> np.ndarray:
    """Of every map for every image, ``[n, k]``."""
    return np.asarray(jax.jit(model.apply)(model.params, images)[layer]).mean((1, 2))


def look(config: Config, name: str, digits: np.ndarray) -> Network:
    """Make the OIPs of one network."""
    model = oipjax.load(name)
    space = oipjax.space_for(model, config.space)
    atlas = oipjax.atlas(
        jax.random.key(config.seed), model, config.layer, space=space, draws=config.draws, steps=config.steps,
        keep_images=1, bounds="none",
        progress=lambda phase, done, total: print(f"{name}: {phase} {done}/{total}   ", end="\r", flush=True),
    )  # fmt: skip
    inputs = np.asarray(jax.vmap(space.project)(jnp.asarray(model.to_input(digits))))
    seen = scores_of(model, config.layer, inputs)
    return Network(model, atlas.images[:, 0], atlas.scores[:, 0], atlas.status == FOUND, seen)


def transfer(
    config: Config, source: Network, goal: Network, own: np.ndarray, partner: np.ndarray
) -> dict[str, Any]:
    """Scores in ``goal`` of what belongs to maps ``own [p]`` of ``source``, as shares of the partners' own OIPs'.

    Returns:
        For each of the words above shares ``[p]``, and ``first``: whether the partner answers most
        of all maps.
    """
    # A share below one may still be the largest: maps differ in the scores that they can reach at
    # all.
    table = (
        scores_of(goal.model, config.layer, source.images[own])[:, partner] / goal.scores[partner]
    )
    many = len(own)
    apart = table.T[~np.eye(many, dtype=bool)].reshape(many, many - 1)
    digits = goal.digits[:, partner] / goal.scores[partner]
    return {
        PARTNER: np.diag(table),
        DIGIT: digits.max(0),
        ITS_DIGIT: digits[source.digits[:, own].argmax(0), np.arange(many)],
        OTHER: np.median(apart, 1),
        "first": table.argmax(1) == np.arange(many),
    }


def interval(values: np.ndarray, seed: int, statistic: Any = np.median) -> list[float]:
    """A statistic of ``values [p, ...]``, and its 95 % interval by bootstrap over the first axis: pairs of maps.

    With more than two networks a map is in several pairs, which counts them as independent: the
    interval is too narrow.
    """
    drawn = stats.bootstrap(
        (np.arange(len(values)),), lambda i: statistic(values[i]), vectorized=False, method="percentile",
        n_resamples=2000, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return [float(statistic(values)), *map(float, drawn.confidence_interval)]


def between(
    config: Config, networks: Sequence[Network], square: np.ndarray, i: int, j: int
) -> dict[str, Any]:
    """Both directions between two networks; arrays are ``[p, 2]``: maps of i shown to j, and of j to i."""
    matching = match(square[i, :, j])
    own = matching.maps[networks[i].found[matching.maps]]
    own = own[networks[j].found[matching.partner[own]]]
    partner = matching.partner[own]
    there = transfer(config, networks[i], networks[j], own, partner)
    back = transfer(config, networks[j], networks[i], partner, own)
    both = {name: np.stack([there[name], back[name]], 1) for name in there}
    return {
        "pair": (i, j),
        "maps": own,
        "partners": partner,
        "correlation": matching.correlation[own],
        **both,
    }


def summary(config: Config, pairs: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """A row for each direction, for all, and for thirds of all by the correlation of the partners."""

    def row(name: str, some: dict[str, np.ndarray]) -> list[Any]:
        medians = [interval(some[kind], config.seed) for kind in COLOURS]
        more = interval(some[PARTNER] > some[DIGIT], config.seed, np.mean)
        return [
            name,
            len(some["correlation"]),
            *medians,
            interval(some["first"], config.seed, np.mean),
            more,
        ]

    rows = []
    for pair in pairs:
        names = [config.networks[k] for k in pair["pair"]]
        for way in (0, 1):
            some = {kind: pair[kind][:, way] for kind in (*COLOURS, "first")}
            rows.append(
                row(" to ".join(names[:: 1 - 2 * way]), some | {"correlation": pair["correlation"]})
            )
    whole = {
        name: np.concatenate([pair[name] for pair in pairs])
        for name in (*COLOURS, "first", "correlation")
    }
    rows.append(row("all", whole))
    order = np.argsort(-whole["correlation"], kind="stable")
    for part, name in zip(np.array_split(order, 3), ("best", "middle", "last"), strict=True):
        lowest, highest = whole["correlation"][part].min(), whole["correlation"][part].max()
        some = {kind: values[part] for kind, values in whole.items()}
        rows.append(row(f"{name} third: correlation {lowest:.2f} to {highest:.2f}", some))
    return rows


def plot(
    config: Config, networks: Sequence[Network], pairs: Sequence[dict[str, Any]], digits: np.ndarray
) -> Figure:
    """How much of the score is kept: against the partners' correlation, over maps, and for some maps with pictures."""
    figure = Figure(figsize=(13.6, 9.2), facecolor="white")
    title = f"What an OIP is worth in another network \N{MIDDLE DOT} {config.layer}"
    figure.text(0.05, 0.965, title, fontsize=15, fontweight="bold", color=INK)
    note = (
        f"Share of the own OIP's score; {len(networks)} networks, both ways; "
        f"maps paired by activations on {len(digits):,} digits."
    )
    figure.text(0.05, 0.942, note, fontsize=9, color=FAINT)
    text = "Below each: what it scores in A and in B. First those whose activations agree most."
    figure.text(0.545, 0.942, text, fontsize=9, color=FAINT)
    left = figure.add_gridspec(2, 1, left=0.055, right=0.43, top=0.9, bottom=0.065, hspace=0.28)
    level = np.concatenate([np.repeat(pair["correlation"], 2) for pair in pairs])
    values = {kind: np.concatenate([pair[kind].ravel() for pair in pairs]) for kind in COLOURS}
    axes = figure.add_subplot(left[0])
    for kind in (OTHER, DIGIT, PARTNER):
        axes.scatter(
            level, values[kind], s=9, color=COLOURS[kind], alpha=0.55, linewidth=0, label=kind
        )
    words(
        axes,
        "Partners that agree on digits share their OIPs (colours as below)",
        "correlation of the partners' activations on digits",
    )
    axes.set_ylabel("share of the own OIP's score", fontsize=9)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes = figure.add_subplot(left[1])
    for kind, colour in COLOURS.items():
        middle = f"{kind}: median {100 * np.median(values[kind]):.0f} %"
        axes.ecdf(values[kind], color=colour, linewidth=1.8, label=middle)
    words(axes, "Over all pairs of maps", "share of the own OIP's score")
    axes.set_ylabel("maps with no more", fontsize=9)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")
    pictures(figure, config, networks, pairs[0], digits)
    return figure


def pictures(
    figure: Figure,
    config: Config,
    networks: Sequence[Network],
    pair: dict[str, Any],
    digits: np.ndarray,
) -> None:
    """Rows of partners, from well to badly matched: both OIPs and both best digits, with their scores in either."""
    i, j = pair["pair"]
    order = np.argsort(-pair["correlation"], kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, config.rows).round().astype(int))]
    grid = figure.add_gridspec(
        config.rows, 4, left=0.56, right=0.985, top=0.875, bottom=0.035, hspace=0.3, wspace=0.02
    )
    names = [config.networks[k] for k in (i, j)]
    heads = (f"OIP of A\n{names[0]}", f"OIP of B\n{names[1]}", "best digit of A", "best digit of B")
    for row, place in enumerate(order):
        a, b = pair["maps"][place], pair["partners"][place]
        best = [networks[i].digits[:, a].argmax(), networks[j].digits[:, b].argmax()]
        forth, back = pair[PARTNER][place]
        worth = [
            (1.0, forth), (back, 1.0),
            *((networks[i].digits[n, a] / networks[i].scores[a], networks[j].digits[n, b] / networks[j].scores[b])
              for n in best),
        ]  # fmt: skip
        shown = [
            networks[i].images[a],
            networks[j].images[b],
            *(networks[i].model.to_input(digits[n]) for n in best),
        ]
        for column, (image, (in_a, in_b)) in enumerate(zip(shown, worth, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(contrast(image, 2.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            text = f"A {100 * in_a:.0f} \N{MIDDLE DOT} B {100 * in_b:.0f} %"
            axes.set_xlabel(text, fontsize=7.5, color=INK, labelpad=2)
            if not row:
                axes.set_title(heads[column], fontsize=8.5, color=INK)
            if not column:
                text = f"map {a}\nand {b}\nr {pair['correlation'][place]:.2f}"
                axes.text(
                    -0.25,
                    0.5,
                    text,
                    transform=axes.transAxes,
                    ha="right",
                    va="center",
                    fontsize=8,
                    color=INK,
                )


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    digits = data.sample().images
    networks = [look(config, name, digits) for name in config.networks]
    print()
    square = correlations([network.model for network in networks], config.layer, digits)
    pairs = [
        between(config, networks, square, i, j) for i, j in combinations(range(len(networks)), 2)
    ]
    rows = summary(config, pairs)
    columns = [
        "from network to network",
        "pairs of maps",
        *COLOURS,
        "partner answers most",
        "above best digit",
    ]
    text = [
        [*row[:2], *(f"{middle:.3f} ({low:.3f}-{high:.3f})" for middle, low, high in row[2:])] for row in rows
    ]  # fmt: skip
    show(
        "scores in the other network, as shares of its own OIPs' (medians, 95 % over maps)",
        columns,
        text,
    )
    level, kept = (
        np.concatenate([pair[name] for pair in pairs]) for name in ("correlation", PARTNER)
    )
    ranks = np.corrcoef(stats.rankdata(level), stats.rankdata(kept.mean(1)))
    content = {
        "config": asdict(config),
        "parameters_sha256": [fingerprint(network.model.params) for network in networks],
        "columns": columns,
        "rows": rows,
        "rank correlation of the partners' correlation and the share kept": float(ranks[0, 1]),
        "pairs": [
            {name: np.asarray(value).tolist() for name, value in pair.items()} for pair in pairs
        ],
    }
    save(results, "oip_transfer", content, plot(config, networks, pairs, digits))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
