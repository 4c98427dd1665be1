"""Is an OIP a property of the network or of the data?

Question: what score does a map's OIP, made in one network, get from the partner of that map in a
network of another seed, as a share of the score of the partner's own OIP? Beside it: the best of
1,000 digits, the digit that the first network's map likes best, and the OIPs of maps that are no
partners.
Expected: far more than an OIP of another map, less than the partner's own: about as much as the
best digit. The better the partners' activations agree on digits, the more of the score is kept.
Cost: about 2 minutes of two cores for two networks.
Command: python -m experiments.oip_transfer (more networks: --networks mnist-cnn FOLDER FOLDER ...)
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

import oipjax
from experiments.common import command, progress_line, save, show
from experiments.figures.oip_transfer import (
    COLOURS,
    DIGIT,
    ITS_DIGIT,
    OTHER,
    PARTNER,
    Picture,
    Row,
    plot,
)
from oipjax.analysis import correlations, match
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.pytrees import fingerprint
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "from network to network",
    "pairs of maps",
    *COLOURS,
    "partner answers most",
    "above best digit",
)


@dataclass(frozen=True)
class Config:
    """The networks, and their OIPs.

    Attributes:
        networks: as `oipjax.load` takes them.
        layer: the layer.
        space: name of the image space of the OIPs; digits are brought into it.
        draws: random starts of each survey.
        steps: of each ascent.
        rows: pairs of maps in the figure.
        seed: of the starts and of the bootstrap.
    """

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


SMOKE = Config(layer="conv1", draws=64, steps=3, rows=2)


@dataclass(frozen=True, eq=False)
class Network:
    """A network, its OIPs and its answers to digits.

    Attributes:
        model: the network.
        images: the OIPs ``[k, h, w, c]``.
        scores: of the OIPs ``[k]``.
        found: bool ``[k]``.
        digits: the maps' scores of digits ``[n, k]``.
    """

    model: Model
    images: np.ndarray
    scores: np.ndarray
    found: np.ndarray
    digits: np.ndarray


class Kept(NamedTuple):
    """Shares of the score that images of ``p`` maps keep, in one direction or in both.

    Attributes:
        shares: ``[p]`` or ``[p, 2]`` by kind of image.
        is_first: whether the partner answers to the OIP most of all maps, bool ``[p]`` or
            ``[p, 2]``.
        correlation: of the partners' activations ``[p]``.
    """

    shares: dict[str, np.ndarray]
    is_first: np.ndarray
    correlation: np.ndarray

    def subset(self, chosen: np.ndarray) -> "Kept":
        """Some of the maps, by their indices."""
        return Kept(
            shares={kind: values[chosen] for kind, values in self.shares.items()},
            is_first=self.is_first[chosen],
            correlation=self.correlation[chosen],
        )


class Pair(NamedTuple):
    """Two networks whose maps are partners.

    Attributes:
        first: the place of the first network.
        second: the place of the second network.
        maps: of the first network ``[p]``.
        partners: of the second network ``[p]``.
        there: images of the first network's maps, shown to the second.
        back: images of the second network's maps, shown to the first.
    """

    first: int
    second: int
    maps: np.ndarray
    partners: np.ndarray
    there: Kept
    back: Kept

    @property
    def correlation(self) -> np.ndarray:
        """Of the partners' activations ``[p]``."""
        return self.there.correlation

    @property
    def both(self) -> Kept:
        """Both directions, with shares ``[p, 2]``."""
        shares = {}
        for kind in COLOURS:
            directions = (self.there.shares[kind], self.back.shares[kind])
            shares[kind] = np.stack(directions, 1)
        is_first = np.stack([self.there.is_first, self.back.is_first], 1)
        return Kept(shares=shares, is_first=is_first, correlation=self.correlation)


def scores_of(model: Model, layer: str, images: np.ndarray) -> np.ndarray:
    """Scores of every map for every image, ``[n, k]``."""
    activations = jax.jit(model.apply)(model.params, images)[layer]
    return np.asarray(activations).mean((1, 2))


def look(config: Config, name: str, digits: np.ndarray) -> Network:
    """Make the OIPs of one network."""
    model = oipjax.load(name)
    space = oipjax.space_for(model, config.space)
    atlas = oipjax.atlas(
        jax.random.key(config.seed),
        model,
        config.layer,
        space=space,
        draws=config.draws,
        steps=config.steps,
        keep_images=1,
        bounds="none",
        progress=progress_line(name),
    )
    inputs = jnp.asarray(model.to_input(digits))
    projected = np.asarray(jax.vmap(space.project)(inputs))
    return Network(
        model=model,
        images=atlas.images[:, 0],
        scores=atlas.scores[:, 0],
        found=atlas.status == FOUND,
        digits=scores_of(model, config.layer, projected),
    )


def transfer(
    config: Config,
    source: Network,
    goal: Network,
    maps: np.ndarray,
    partners: np.ndarray,
    correlation: np.ndarray,
) -> Kept:
    """Scores in ``goal`` of images of maps of ``source``, as shares of the partners' own OIPs'.

    Args:
        config: of the experiment.
        source: the network that the images come from.
        goal: the network that they are shown to.
        maps: of the source ``[p]``.
        partners: of the goal ``[p]``.
        correlation: of the partners' activations ``[p]``.
    """
    count = len(maps)
    own = np.arange(count)
    best = goal.scores[partners]
    # A share below one may still be the largest: maps differ in the scores that they can reach at
    # all.
    scores = scores_of(goal.model, config.layer, source.images[maps])
    table = scores[:, partners] / best
    is_other = ~np.eye(count, dtype=bool)
    others = table.T[is_other].reshape(count, count - 1)
    digits = goal.digits[:, partners] / best
    favourites = source.digits[:, maps].argmax(0)
    shares = {
        PARTNER: np.diag(table),
        DIGIT: digits.max(0),
        ITS_DIGIT: digits[favourites, own],
        OTHER: np.median(others, 1),
    }
    return Kept(shares=shares, is_first=table.argmax(1) == own, correlation=correlation)


def between(
    config: Config, networks: Sequence[Network], square: np.ndarray, i: int, j: int
) -> Pair:
    """Both directions between two networks."""
    first = networks[i]
    second = networks[j]
    matching = match(square[i, :, j])
    maps = matching.maps
    is_found = first.found[maps] & second.found[matching.partner[maps]]
    maps = maps[is_found]
    partners = matching.partner[maps]
    correlation = matching.correlation[maps]
    return Pair(
        first=i,
        second=j,
        maps=maps,
        partners=partners,
        there=transfer(config, first, second, maps, partners, correlation),
        back=transfer(config, second, first, partners, maps, correlation),
    )


def interval(
    values: np.ndarray, seed: int, statistic: Callable[[np.ndarray], Any] = np.median
) -> list[float]:
    """A statistic of ``values [p, ...]``, and its 95 % interval by bootstrap over the first axis.

    That axis holds pairs of maps. With more than two networks a map is in several pairs, which
    count as independent, so the interval is too narrow.
    """

    def of_chosen(chosen: np.ndarray) -> Any:
        return statistic(values[chosen])

    drawn = stats.bootstrap(
        (np.arange(len(values)),),
        of_chosen,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(seed),
    )
    low, high = drawn.confidence_interval
    return [float(statistic(values)), float(low), float(high)]


def row_of(config: Config, name: str, kept: Kept) -> list[Any]:
    """A row of the table, in the order of `COLUMNS`: values with their intervals."""
    medians = [interval(kept.shares[kind], config.seed) for kind in COLOURS]
    is_first = interval(kept.is_first, config.seed, np.mean)
    is_above = kept.shares[PARTNER] > kept.shares[DIGIT]
    above = interval(is_above, config.seed, np.mean)
    return [name, len(kept.correlation), *medians, is_first, above]


def together(pairs: Sequence[Pair]) -> Kept:
    """The maps of all pairs of networks, both directions."""
    kept = [pair.both for pair in pairs]
    shares = {}
    for kind in COLOURS:
        shares[kind] = np.concatenate([part.shares[kind] for part in kept])
    return Kept(
        shares=shares,
        is_first=np.concatenate([part.is_first for part in kept]),
        correlation=np.concatenate([part.correlation for part in kept]),
    )


def summary(config: Config, pairs: Sequence[Pair]) -> list[list[Any]]:
    """A row for each direction, for all, and for thirds of all by the partners' correlation."""
    rows = []
    for pair in pairs:
        first = config.networks[pair.first]
        second = config.networks[pair.second]
        rows.append(row_of(config, f"{first} to {second}", pair.there))
        rows.append(row_of(config, f"{second} to {first}", pair.back))
    whole = together(pairs)
    rows.append(row_of(config, "all", whole))
    order = np.argsort(-whole.correlation, kind="stable")
    thirds = np.array_split(order, 3)
    for chosen, name in zip(thirds, ("best", "middle", "last"), strict=True):
        part = whole.subset(chosen)
        span = f"{part.correlation.min():.2f} to {part.correlation.max():.2f}"
        rows.append(row_of(config, f"{name} third: correlation {span}", part))
    return rows


def picture_rows(
    config: Config, networks: Sequence[Network], pair: Pair, digits: np.ndarray
) -> list[Row]:
    """Some partners, from well to badly matched."""
    order = np.argsort(-pair.correlation, kind="stable")
    places = np.linspace(0, len(order) - 1, config.rows).round().astype(int)
    first = networks[pair.first]
    second = networks[pair.second]
    rows = []
    for place in order[np.unique(places)]:
        a = pair.maps[place]
        b = pair.partners[place]
        in_b = float(pair.there.shares[PARTNER][place])
        in_a = float(pair.back.shares[PARTNER][place])
        pictures = [
            Picture(image=first.images[a], in_a=1.0, in_b=in_b),
            Picture(image=second.images[b], in_a=in_a, in_b=1.0),
        ]
        for network, number in ((first, a), (second, b)):
            best = network.digits[:, number].argmax()
            picture = Picture(
                image=network.model.to_input(digits[best]),
                in_a=first.digits[best, a] / first.scores[a],
                in_b=second.digits[best, b] / second.scores[b],
            )
            pictures.append(picture)
        label = f"map {a}\nand {b}\nr {pair.correlation[place]:.2f}"
        rows.append(Row(label=label, pictures=tuple(pictures)))
    return rows


def pair_content(pair: Pair) -> dict[str, Any]:
    """A pair of networks, as it is written; values of both directions are ``[p, 2]``."""
    both = pair.both
    arrays = {
        "maps": pair.maps,
        "partners": pair.partners,
        "correlation": both.correlation,
        **both.shares,
        "first": both.is_first,
    }
    content: dict[str, Any] = {"pair": [pair.first, pair.second]}
    for name, values in arrays.items():
        content[name] = values.tolist()
    return content


def draw(
    config: Config,
    networks: Sequence[Network],
    pairs: Sequence[Pair],
    whole: Kept,
    digits: np.ndarray,
) -> Figure:
    """The figure, with pictures of the first pair of networks."""
    title = f"What an OIP is worth in another network \N{MIDDLE DOT} {config.layer}"
    note = (
        f"Share of the own OIP's score; {len(networks)} networks, both ways; "
        f"maps paired by activations on {len(digits):,} digits."
    )
    first = config.networks[pairs[0].first]
    second = config.networks[pairs[0].second]
    return plot(
        title=title,
        note=note,
        correlation=np.repeat(whole.correlation, 2),
        shares={kind: values.ravel() for kind, values in whole.shares.items()},
        names=(first, second),
        rows=picture_rows(config, networks, pairs[0], digits),
    )


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    digits = data.sample().images
    networks = [look(config, name, digits) for name in config.networks]
    print()
    models = [network.model for network in networks]
    square = correlations(models, config.layer, digits)
    pairs = []
    for i, j in combinations(range(len(networks)), 2):
        pairs.append(between(config, networks, square, i, j))
    rows = summary(config, pairs)
    cells = []
    for name, count, *values in rows:
        texts = [f"{middle:.3f} ({low:.3f}-{high:.3f})" for middle, low, high in values]
        cells.append([name, count, *texts])
    title = "scores in the other network, as shares of its own OIPs' (medians, 95 % over maps)"
    show(title, COLUMNS, cells)
    whole = together(pairs)
    kept = whole.shares[PARTNER].mean(1)
    ranks = np.corrcoef(stats.rankdata(whole.correlation), stats.rankdata(kept))
    content = {
        "config": asdict(config),
        "parameters_sha256": [fingerprint(model.params) for model in models],
        "columns": COLUMNS,
        "rows": rows,
        "rank correlation of the partners' correlation and the share kept": float(ranks[0, 1]),
        "pairs": [pair_content(pair) for pair in pairs],
    }
    save(results, "oip_transfer", content, draw(config, networks, pairs, whole, digits))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
