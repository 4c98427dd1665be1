"""Do two training runs give the same filters, and the same order of maps?

Question: the source article (R. Moenchmeyer, "A simple CNN for the MNIST dataset", part IX) leaves
    open whether two
trainings of one CNN on shuffled images of the same training set give the same filters and the same
map order. How many maps have a partner in a network of another seed (other initial weights, another
order of the images), or of the same initial weights and another order only?
Expected: with other seeds filters of the first layer come back in another order; the deeper the
    layer, the fewer maps
have a partner; the index of a map says nothing. With the same initial weights most maps keep their
place. Cost: about 4 minutes for each of six trainings (kept in oipjax-out/seeds, and not done
again), then 4 minutes. Command: OIPJAX_DATA=folder python -m experiments.retrained_networks
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.common import NETWORKS, command, network, save, show, unseen
from oipjax import training
from oipjax.analysis import Matching, correlations, match, over_pairs, similarity
from oipjax.data import Dataset, Split
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.networks import cnn
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.pytrees import fingerprint
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
SEEDS, TWINS, UNTRAINED, SHUFFLED = (
    "other seeds",
    "same start, other order",
    "untrained",
    "shuffled images",
)
COLOURS = {SEEDS: BLUE, TWINS: "#009E73", UNTRAINED: INACTIVE, SHUFFLED: FAINT}
LEVELS = (0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Config:
    """Networks by the seed of their training; 0 is the shipped one.

    Those in ``reordered`` are trained once more, from the same initial weights with the images in
    another order.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    reordered: tuple[int, ...] = (0, 1)
    layers: tuple[str, ...] = ("conv1", "conv2", "conv3")
    train: training.ClassifierTrainConfig = training.ClassifierTrainConfig()
    draws: int = 1024
    steps: int = 60
    rows: int = 7
    seed: int = 0
    networks: Path = NETWORKS

    def __post_init__(self):
        if len(self.seeds) < 2:
            raise ValueError(
                f"expected the seeds of two or more networks to compare, got {self.seeds}; add some"
            )
        if not set(self.reordered) <= set(self.seeds):
            raise ValueError(
                f"reordered must be some of the seeds {self.seeds}, got {self.reordered}"
            )


SMOKE = Config((0, 0), (), ("conv1",), draws=64, steps=3, rows=2)


def other_order(digits: Dataset, held_out: int, seed: int) -> Dataset:
    """The same images in another order; those held out of the training stay so."""
    images, labels = digits.train
    count = len(images) - held_out
    order = np.arange(len(images))
    order[:count] = np.asarray(jax.random.permutation(jax.random.key(1000 + seed), count))
    return digits._replace(train=Split(images[order], labels[order]))


def twin(config: Config, seed: int, digits: Dataset | None) -> Model:
    """A network trained from the initial weights of another one, with the images in another order."""
    folder = config.networks / "reordered"
    if not (folder / f"seed{seed}").exists():
        digits = data.load() if digits is None else digits
        digits = other_order(digits, config.train.held_out(len(digits.train.images)), seed)
    return network(seed, config.train, folder, digits)


def untrained(config: Config, like: Model, key: jax.Array) -> Model:
    """A network with initial weights only."""
    architecture = config.train.network
    if not isinstance(architecture, cnn.CNNConfig):
        raise ValueError(f"expected a training of a classifier, got one of {architecture}")
    return replace(like, params=cnn.init(key, architecture))


def measures(matching: Matching, live: float, alike: np.ndarray) -> np.ndarray:
    """Of one pair of networks, see `NAMES`; with the mean number of live maps, and how alike OIPs are, ``[k, k]``."""
    maps, partner, value = (
        matching.maps,
        matching.partner[matching.maps],
        matching.correlation[matching.maps],
    )
    shares = [np.sum(value >= level) / live for level in LEVELS]
    own = alike[maps, partner]
    others = np.array(alike[maps])
    others[np.arange(len(maps)), partner] = np.nan
    medians = [
        float(np.nanmedian(some)) if np.isfinite(some).any() else np.nan for some in (own, others)
    ]
    return np.array([np.median(value), *shares, np.mean(partner == maps), *medians])


NAMES = (
    "correlation with partner, median", *(f"share with a partner >= {level:g}" for level in LEVELS),
    "same index", "similarity of OIPs, partners", "similarity of OIPs, other maps",
)  # fmt: skip


def compare(
    square: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    alike: np.ndarray | None,
    levels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """For pairs of networks in ``square [m, k, m, k]``: shares of maps at levels ``[p, t]``, measures ``[p, q]``."""
    maps = square.shape[1]
    nothing = np.full((maps, maps), np.nan)
    curves, rows = [], []
    for i, j in pairs:
        matching = match(square[i, :, j])
        live = np.mean([np.isfinite(square[n, :, n]).any(1).sum() for n in (i, j)])
        curves.append([np.nansum(matching.correlation >= level) / live for level in levels])
        rows.append(measures(matching, float(live), nothing if alike is None else alike[i, :, j]))
    return np.array(curves), np.array(rows)


def spread(values: np.ndarray, many: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error: over all pairs of ``many`` networks, or over pairs that share none (None)."""
    if many is None:
        error = (
            values.std(0, ddof=1) / np.sqrt(len(values))
            if len(values) > 1
            else np.full(values.shape[1], np.nan)
        )
        return values.mean(0), error
    square = np.zeros((many, many, values.shape[1]))
    square[np.triu_indices(many, 1)] = values
    return over_pairs(square)


def patterns(config: Config, model: Model, layer: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Best image of each map ``[k, h, w, c]``, and which of them were found, ``[k]``."""
    atlas = oipjax.atlas(
        jax.random.key(seed),
        model,
        layer,
        draws=config.draws,
        keep=1,
        steps=config.steps,
        search=0,
        bounds="none",
    )
    return atlas.images[:, 0], atlas.status == FOUND


def resemblance(images: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Similarity of OIPs ``[m, k, m, k]``, NaN where one was not found."""
    many, maps = found.shape
    alike, there = np.full((many * maps,) * 2, np.nan), np.flatnonzero(found)
    alike[np.ix_(there, there)] = similarity(images.reshape(-1, *images.shape[2:])[there])[0]
    return alike.reshape(many, maps, many, maps)


def study(
    config: Config, layer: str, models: Sequence[Model], digits: np.ndarray
) -> dict[str, Any]:
    """One layer: curves and measures for each kind of pair, and what the figure shows."""
    many, keys = len(config.seeds), jax.random.split(jax.random.key(config.seed), len(config.seeds))
    square = correlations(models, layer, digits)
    orders = np.stack([np.asarray(jax.random.permutation(key, len(digits))) for key in keys])
    null = correlations(models[:many], layer, digits, orders=orders)
    fresh = [untrained(config, models[0], key) for key in keys]
    best = [patterns(config, model, layer, config.seed) for model in models]
    images, found = (np.stack(part) for part in zip(*best, strict=True))
    again, found_again = patterns(config, models[0], layer, config.seed + 1)
    alike = resemblance(images, found)
    twice = resemblance(np.stack([images[0], again]), np.stack([found[0], found_again]))
    all_pairs = list(combinations(range(many), 2))
    twins = [(config.seeds.index(seed), many + i) for i, seed in enumerate(config.reordered)]
    levels = np.linspace(0, 1, 51)
    kinds: dict[str, Any] = {}
    for kind, table, pairs, resembling, networks in (
        (SEEDS, square, all_pairs, alike, many), (TWINS, square, twins, alike, None),
        (UNTRAINED, correlations(fresh, layer, digits), all_pairs, None, many),
        (SHUFFLED, null, all_pairs, None, many),
    ):  # fmt: skip
        if pairs:
            curves, rows = compare(table, pairs, resembling, levels)
            kinds[kind] = {
                "curve": spread(curves, networks),
                "measures": spread(rows, networks),
                "pairs": rows,
            }
    live = np.isfinite(square[np.arange(len(models)), :, np.arange(len(models))]).any(2)
    return {
        "layer": layer, "maps": square.shape[1], "live": live.sum(1).tolist(), "levels": levels, "kinds": kinds,
        "similarity of OIPs, one map twice": float(np.nanmedian(np.diagonal(twice[0, :, 1]))),
        "filters": filters(models, square, many) if layer == models[0].layers[0].removesuffix("_pre") else None,
        "square": square, "images": images, "found": found,
    }  # fmt: skip


def filters(models: Sequence[Model], square: np.ndarray, many: int) -> dict[str, float]:
    """Cosine of the kernels of the first layer, which see the same image: of partners, and of other maps."""
    own, others = [], []
    for i, j in combinations(range(many), 2):
        matching = match(square[i, :, j])
        one, two = (
            np.asarray(models[n].params["conv1"]["kernel"]).reshape(-1, square.shape[1])
            for n in (i, j)
        )
        cosine = (one / np.linalg.norm(one, axis=0)).T @ (two / np.linalg.norm(two, axis=0))
        own += cosine[matching.maps, matching.partner[matching.maps]].tolist()
        others += cosine[matching.maps].ravel().tolist()
    return {"partners, median": float(np.median(own)), "partners above .9": float(np.mean(np.array(own) > 0.9)),
            "all pairs, median": float(np.median(others))}  # fmt: skip


def plot(config: Config, layers: Sequence[dict[str, Any]]) -> Figure:
    """Shares of maps with a partner, layer by layer; below, OIPs of some maps and of their partners."""
    figure = Figure(figsize=(14.4, 11.2), facecolor="white")
    figure.text(
        0.045,
        0.972,
        "Do two trainings give the same maps?",
        fontsize=15,
        fontweight="bold",
        color=INK,
    )
    text = f"{len(config.seeds)} networks that differ in their seed. Lines: mean over pairs, bands: one standard error"
    figure.text(0.045, 0.953, f"{text} (networks left out in turn).", fontsize=9, color=FAINT)
    top = figure.add_gridspec(
        1, len(layers), left=0.045, right=0.985, top=0.915, bottom=0.7, wspace=0.16
    )
    names = [f"seed {seed}" for seed in config.seeds] + [
        f"seed {seed}\nreordered" for seed in config.reordered
    ]
    for column, facts in enumerate(layers):
        axes = figure.add_subplot(top[column])
        for kind, found in facts["kinds"].items():
            mean, error = (100 * part for part in found["curve"])
            axes.plot(facts["levels"], mean, color=COLOURS[kind], label=kind, linewidth=1.8)
            axes.fill_between(
                facts["levels"],
                mean - error,
                mean + error,
                color=COLOURS[kind],
                alpha=0.2,
                linewidth=0,
            )
        live = facts["live"]
        span = f"{min(live)} to {max(live)}" if min(live) < max(live) else f"{max(live)}"
        axes.set_title(f"{facts['layer']}: {span} of {facts['maps']} maps answer to digits",
                       fontsize=10, fontweight="bold", color=INK, loc="left")  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 103))
        axes.set_xlabel("correlation with the partner, at least", fontsize=9)
        axes.set_ylabel("maps that have such a partner (%)" if not column else "", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.tick_params(labelsize=8, colors="#444444")
        if column == len(layers) - 1:
            axes.legend(
                fontsize=8.5,
                frameon=False,
                loc="upper right",
                title="pairs of networks",
                title_fontsize=8.5,
            )
        grid = figure.add_gridspec(
            config.rows, len(names[: len(config.seeds) + 1]), left=0.045 + column * 0.321,
            right=0.325 + column * 0.321, top=0.58, bottom=0.03, wspace=0.1, hspace=0.34,
        )  # fmt: skip
        pictures(figure, grid, config, facts, names)
    figure.text(0.045, 0.633, "OIPs of maps of the first network and of their partners", fontsize=11.5,
                fontweight="bold", color=INK)  # fmt: skip
    note = "From well to badly matched. Below each: the map's index, and the correlation of its activations."
    figure.text(0.045, 0.618, note, fontsize=9, color=FAINT)
    return figure


def pictures(
    figure: Figure, grid: Any, config: Config, facts: dict[str, Any], names: Sequence[str]
) -> None:
    """A row for each of some maps, from well to badly matched: its OIP and those of its partners."""
    shown = len(config.seeds) + (config.reordered[:1] == config.seeds[:1])
    matched = [match(facts["square"][0, :, j]) for j in range(1, shown)]
    there = facts["found"][0] & np.all(
        [(m.partner >= 0) & facts["found"][j, m.partner] for j, m in enumerate(matched, 1)], axis=0
    )
    level = np.mean([m.correlation for m in matched[: len(config.seeds) - 1]], axis=0)
    order = np.flatnonzero(there)[np.argsort(-level[there], kind="stable")]
    for row, number in enumerate(
        order[np.unique(np.linspace(0, len(order) - 1, config.rows).round().astype(int))]
    ):
        for column in range(shown):
            axes = figure.add_subplot(grid[row, column])
            index = number if not column else matched[column - 1].partner[number]
            picture = contrast(facts["images"][column, index], 2.0)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            label = (
                f" \N{MIDDLE DOT} {matched[column - 1].correlation[number]:.2f}" if column else ""
            )
            axes.set_xlabel(f"{index}{label}", fontsize=7.5, color=INK, labelpad=2)
            if not row:
                axes.set_title(names[column], fontsize=8, color=FAINT if column else INK, pad=4)


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> dict[str, Any]:
    """Run, print, write."""
    models = [
        network(s, config.train, config.networks, digits) if s else oipjax.load()
        for s in config.seeds
    ]
    models += [twin(config, seed, digits) for seed in config.reordered]
    images = unseen().images
    layers = [study(config, layer, models, images) for layer in config.layers]
    rows = [
        [
            facts["layer"],
            kind,
            *(f"{mean:.3f} +- {error:.3f}" for mean, error in zip(*found["measures"], strict=True)),
        ]
        for facts in layers
        for kind, found in facts["kinds"].items()
    ]
    show("do two trainings give the same maps?", ["layer", "pairs", *NAMES], rows)
    content = {
        "config": asdict(config) | {"networks": str(config.networks)},
        "digits": len(images),
        "parameters_sha256": [fingerprint(model.params) for model in models],
        "measures": NAMES,
        "layers": [
            {
                name: plain(value)
                for name, value in facts.items()
                if name not in ("square", "images", "found")
            }
            for facts in layers
        ],
    }
    save(results, "retrained_networks", content, plot(config, layers))
    return content


def plain(value: Any) -> Any:
    """As JSON takes it; NaN becomes null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
