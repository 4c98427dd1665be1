"""Do two training runs give the same filters, and the same order of maps?

Question: the source article (R. Moenchmeyer, "A simple CNN for the MNIST dataset", part IX) leaves
open whether two trainings of one CNN on shuffled images of the same training set give the same
filters and the same map order. How many maps have a partner in a network of another seed (other
initial weights, another order of the images)? How many have one in a network of the same initial
weights and another order only?
Expected: with other seeds filters of the first layer come back in another order. The deeper the
layer, the fewer maps have a partner. The index of a map says nothing. With the same initial weights
most maps keep their place.
Cost: about 4 minutes for each of six trainings (kept in oipjax-out/seeds, and not done again), then
4 minutes.
Command: OIPJAX_DATA=folder python -m experiments.retrained_networks
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import numpy as np

import oipjax
from experiments.common import NETWORKS, command, network, save, show, unseen
from experiments.figures.retrained_networks import (
    SEEDS,
    SHUFFLED,
    TWINS,
    UNTRAINED,
    Kind,
    Layer,
    plot,
)
from oipjax.analysis import Matching, correlations, match, over_pairs, similarity
from oipjax.data import Dataset, Split
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.networks import cnn
from oipjax.pytrees import fingerprint
from oipjax.study import FOUND
from oipjax.training import ClassifierTrainConfig

RESULTS = Path(__file__).parent / "results"
LEVELS = (0.5, 0.7, 0.9)
MEASURES = (
    "correlation with partner, median",
    *(f"share with a partner >= {level:g}" for level in LEVELS),
    "same index",
    "similarity of OIPs, partners",
    "similarity of OIPs, other maps",
)
CURVE = np.linspace(0, 1, 51)
"""Levels of correlation of the curves."""


@dataclass(frozen=True)
class Config:
    """The networks, and their OIPs.

    Attributes:
        seeds: of the trainings; 0 is the shipped network.
        reordered: seeds of networks that are trained once more, from the same initial weights with
            the images in another order.
        layers: the layers.
        train: how to train.
        draws: random starts of each survey.
        steps: of each ascent.
        rows: maps of each layer in the figure.
        seed: of the starts and of the shuffled images.
        networks: the folder of networks that were trained.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    reordered: tuple[int, ...] = (0, 1)
    layers: tuple[str, ...] = ("conv1", "conv2", "conv3")
    train: ClassifierTrainConfig = ClassifierTrainConfig()
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


SMOKE = Config(
    seeds=(0, 0),
    reordered=(),
    layers=("conv1",),
    draws=64,
    steps=3,
    rows=2,
)


def other_order(digits: Dataset, held_out: int, seed: int) -> Dataset:
    """The same images in another order; those held out of the training stay so."""
    images, labels = digits.train
    count = len(images) - held_out
    order = np.arange(len(images))
    key = jax.random.key(1000 + seed)
    order[:count] = np.asarray(jax.random.permutation(key, count))
    return digits._replace(train=Split(images[order], labels[order]))


def twin(config: Config, seed: int, digits: Dataset | None) -> Model:
    """A network trained from another one's initial weights, with the images in another order."""
    folder = config.networks / "reordered"
    if not (folder / f"seed{seed}").exists():
        if digits is None:
            digits = data.load()
        digits = other_order(digits, config.train.held_out(len(digits.train.images)), seed)
    return network(seed, config.train, folder, digits)


def untrained(config: Config, like: Model, key: jax.Array) -> Model:
    """A network with initial weights only."""
    architecture = config.train.network
    if not isinstance(architecture, cnn.CNNConfig):
        raise ValueError(f"expected a training of a classifier, got one of {architecture}")
    return replace(like, params=cnn.init(key, architecture))


def measures_of(matching: Matching, live: float, alike: np.ndarray) -> np.ndarray:
    """The `MEASURES` of one pair of networks.

    Args:
        matching: of their maps.
        live: the mean number of maps that respond.
        alike: similarity of OIPs ``[k, k]``.
    """
    maps = matching.maps
    partner = matching.partner[maps]
    correlation = matching.correlation[maps]
    shares = [np.sum(correlation >= level) / live for level in LEVELS]
    of_partners = alike[maps, partner]
    of_others = np.array(alike[maps])
    of_others[np.arange(len(maps)), partner] = np.nan
    return np.array(
        [
            np.median(correlation),
            *shares,
            np.mean(partner == maps),
            finite_median(of_partners),
            finite_median(of_others),
        ]
    )


def finite_median(values: np.ndarray) -> float:
    """The median of the finite values; NaN if there is none."""
    if not np.isfinite(values).any():
        return np.nan
    return float(np.nanmedian(values))


def compare(
    square: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    alike: np.ndarray | None,
    networks: int | None,
) -> Kind:
    """Pairs of networks.

    Args:
        square: correlations of activations ``[m, k, m, k]``.
        pairs: the pairs of networks.
        alike: similarity of OIPs ``[m, k, m, k]``, if known.
        networks: how many there are, if ``pairs`` are all pairs of them; None if no two pairs
            share a network.
    """
    maps = square.shape[1]
    unknown = np.full((maps, maps), np.nan)
    shares = []
    rows = []
    for i, j in pairs:
        matching = match(square[i, :, j])
        live = np.mean([live_maps(square, network).sum() for network in (i, j)])
        numbers = [np.nansum(matching.correlation >= level) for level in CURVE]
        shares.append(np.array(numbers) / live)
        of_pair = unknown if alike is None else alike[i, :, j]
        rows.append(measures_of(matching, float(live), of_pair))
    measures = np.array(rows)
    curve = spread(np.array(shares), networks)
    return Kind(curve=curve, measures=spread(measures, networks), pairs=measures)


def live_maps(square: np.ndarray, network: int) -> np.ndarray:
    """Whether each map of a network varies with the image, bool ``[k]``."""
    own = square[network, :, network]
    return np.any(np.isfinite(own), axis=1)


def spread(values: np.ndarray, networks: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error ``[q]`` of ``values [p, q]``.

    Args:
        values: of each pair.
        networks: see `compare`.
    """
    if networks is not None:
        square = np.zeros((networks, networks, values.shape[1]))
        square[np.triu_indices(networks, 1)] = values
        return over_pairs(square)
    pairs = len(values)
    if pairs == 1:
        error = np.full(values.shape[1], np.nan)
    else:
        error = values.std(0, ddof=1) / np.sqrt(pairs)
    return values.mean(0), error


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
    networks, maps = found.shape
    size = networks * maps
    alike = np.full((size, size), np.nan)
    places = np.flatnonzero(found)
    flat = images.reshape(size, *images.shape[2:])
    alike[np.ix_(places, places)] = similarity(flat[places])[0]
    return alike.reshape(networks, maps, networks, maps)


def study(
    config: Config, name: str, models: Sequence[Model], digits: np.ndarray
) -> tuple[Layer, dict[str, Any]]:
    """One layer for the figure, and its facts."""
    networks = len(config.seeds)
    keys = jax.random.split(jax.random.key(config.seed), networks)
    square = correlations(models, name, digits)
    best = [patterns(config, model, name, config.seed) for model in models]
    images = np.stack([own for own, _ in best])
    found = np.stack([is_found for _, is_found in best])
    alike = resemblance(images, found)
    pairs = list(combinations(range(networks), 2))
    kinds = {SEEDS: compare(square, pairs, alike, networks)}
    twins = []
    for number, seed in enumerate(config.reordered):
        twins.append((config.seeds.index(seed), networks + number))
    if twins:
        kinds[TWINS] = compare(square, twins, alike, None)
    fresh = [untrained(config, models[0], key) for key in keys]
    kinds[UNTRAINED] = compare(correlations(fresh, name, digits), pairs, None, networks)
    orders = [np.asarray(jax.random.permutation(key, len(digits))) for key in keys]
    by_chance = correlations(models[:networks], name, digits, orders=np.stack(orders))
    kinds[SHUFFLED] = compare(by_chance, pairs, None, networks)
    again, found_again = patterns(config, models[0], name, config.seed + 1)
    both_found = np.stack([found[0], found_again])
    twice = resemblance(np.stack([images[0], again]), both_found)
    is_first = name == models[0].layers[0].removesuffix("_pre")
    live = [int(live_maps(square, number).sum()) for number in range(len(models))]
    layer = Layer(
        name=name,
        live=live,
        levels=CURVE,
        kinds=kinds,
        square=square,
        images=images,
        found=found,
    )
    facts = {
        "layer": name,
        "maps": square.shape[1],
        "live": live,
        "levels": CURVE,
        "kinds": {kind: pairs._asdict() for kind, pairs in kinds.items()},
        "similarity of OIPs, one map twice": float(np.nanmedian(np.diagonal(twice[0, :, 1]))),
        "filters": filters(models, square, networks) if is_first else None,
    }
    return layer, facts


def filters(models: Sequence[Model], square: np.ndarray, networks: int) -> dict[str, float]:
    """Cosine of the kernels of the first layer, which see the same image."""
    directions = []
    for model in models[:networks]:
        kernels = np.asarray(model.params["conv1"]["kernel"])
        kernels = kernels.reshape(-1, square.shape[1])
        directions.append(kernels / np.linalg.norm(kernels, axis=0))
    of_partners = []
    of_all = []
    for i, j in combinations(range(networks), 2):
        matching = match(square[i, :, j])
        maps = matching.maps
        cosine = directions[i].T @ directions[j]
        of_partners.append(cosine[maps, matching.partner[maps]])
        of_all.append(cosine[maps].ravel())
    # As Python's floats, so that the medians are those of float64.
    partners = np.concatenate(of_partners).tolist()
    pairs = np.concatenate(of_all).tolist()
    return {
        "partners, median": float(np.median(partners)),
        "partners above .9": float(np.mean(np.array(partners) > 0.9)),
        "all pairs, median": float(np.median(pairs)),
    }


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> dict[str, Any]:
    """Run, print, write."""
    models = []
    for seed in config.seeds:
        if seed == 0:
            models.append(oipjax.load())
        else:
            models.append(network(seed, config.train, config.networks, digits))
    models += [twin(config, seed, digits) for seed in config.reordered]
    images = unseen().images
    studies = [study(config, layer, models, images) for layer in config.layers]
    layers = [layer for layer, _ in studies]
    rows = table(layers)
    show("do two trainings give the same maps?", ["layer", "pairs", *MEASURES], rows)
    content = {
        "config": asdict(config) | {"networks": str(config.networks)},
        "digits": len(images),
        "parameters_sha256": [fingerprint(model.params) for model in models],
        "measures": MEASURES,
        "layers": [plain(facts) for _, facts in studies],
    }
    figure = plot(config.seeds, config.reordered, config.rows, layers)
    save(results, "retrained_networks", content, figure)
    return content


def table(layers: Sequence[Layer]) -> list[list[str]]:
    """A row for each layer and kind of pair, with standard errors."""
    rows = []
    for layer in layers:
        for name, kind in layer.kinds.items():
            cells = []
            for mean, error in zip(*kind.measures, strict=True):
                cells.append(f"{mean:.3f} +- {error:.3f}")
            rows.append([layer.name, name, *cells])
    return rows


def plain(value: Any) -> Any:
    """The value as JSON takes it; NaN becomes null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    is_missing = isinstance(value, float) and np.isnan(value)
    return None if is_missing else value


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
