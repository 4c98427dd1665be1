"""What is left of a digit in each layer, and where can its class be told?

Question: how far do the classes lie apart in the activations of each layer, how well does a linear
read-out tell them, how much of the image can be read out, and where do two classes separate that
the network confuses? Which digits excite each map most, and how do they compare with its pattern?
Expected: the observations of the source series (R. Moenchmeyer, "A simple CNN for the MNIST
dataset", parts IV to VI): figures are still visible in the first layer and gone in the third;
patterns of confusable digits look alike in the third layer, and the dense layer tells them apart.
In numbers: from layer to layer the class is easier to read out, and the image harder.
Cost: a minute of two cores.
Command: python -m experiments.activation_patterns

With more digits it takes ten times as long:
OIPJAX_DATA=folder python -m experiments.activation_patterns --images 2000
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

import oipjax
from experiments.common import command, save, show
from oipjax.analysis import class_means, exemplars, layer_activations, map_means, readout
from oipjax.data import Split
from oipjax.data import mnist as data
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, exemplars_figure, maps_figure
from oipjax.study import FOUND, Atlas

RESULTS = Path(__file__).parent / "results"
GREEN = "#009E73"
PIXELS = "pixels"
"""The name of the image itself among the layers."""


@dataclass(frozen=True)
class Config:
    """The digits, and how the layers are measured.

    Attributes:
        checkpoint: the network.
        images: the first so many of MNIST's test set; more than the 1,000 that ship with oipjax
            are read from the folder ``OIPJAX_DATA``.
        layers: the layers to measure.
        folds: of the cross-validation.
        bootstraps: draws for the intervals.
        digit: the class of which three images are drawn.
        keep: strongest digits of each map.
        draws: random starts of the survey.
        steps: of each ascent.
        maps: whose patterns are found; all unless given.
        seed: of the atlas, the folds and the draws.
    """

    checkpoint: str = "mnist-cnn"
    images: int = 1000
    layers: tuple[str, ...] = ("conv1", "pool1", "conv2", "pool2", "conv3", "dense1", "logits")
    folds: int = 5
    bootstraps: int = 200
    digit: int = 4
    keep: int = 9
    draws: int = 4096
    steps: int = 100
    maps: tuple[int, ...] | None = None
    seed: int = 0


SMOKE = Config(
    images=200,
    layers=("conv3", "logits"),
    folds=2,
    bootstraps=5,
    keep=3,
    draws=64,
    steps=4,
    maps=(3, 50, 120),
)


class Confusion(NamedTuple):
    """Two classes that the network confuses.

    Attributes:
        a: the class of the clearest error.
        b: the class that it is read as.
        images: the images of the two that are confused, the clearest error first.
    """

    a: int
    b: int
    images: np.ndarray


class Patterns(NamedTuple):
    """The patterns of the maps, and the digits ``[k, r]`` that excite each map most."""

    atlas: Atlas
    strongest: np.ndarray


def digits(config: Config) -> Split:
    """Test images and their labels."""
    sample = data.sample()
    split = sample if config.images <= len(sample.images) else data.load().test
    if config.images > len(split.images):
        raise ValueError(f"images must be at most {len(split.images)}, got {config.images}")
    return Split(split.images[: config.images], split.labels[: config.images])


def measure(
    config: Config, features: np.ndarray, products: np.ndarray, split: Split, floor: float | None
) -> tuple[dict[str, Any], np.ndarray]:
    """The numbers of one layer, and whether each digit is read out right from it."""
    key = jax.random.key(config.seed)
    labels = split.labels
    count = len(labels)
    fold = readout.folds(key, labels, config.folds)
    one_hot = np.eye(10)[labels]
    pixels = split.images.reshape(count, -1) / 255
    is_right = readout.ridge(products, one_hot, fold).argmax(1) == labels
    of_means = readout.gram(map_means(features))
    is_right_by_means = readout.ridge(of_means, one_hot, fold).argmax(1) == labels
    error = np.square(readout.ridge(products, pixels, fold) - pixels).sum()
    variance = np.square(pixels - pixels.mean(0)).sum()
    draw_key = jax.random.fold_in(key, 1)
    draws = np.asarray(jax.random.randint(draw_key, (config.bootstraps, count), 0, count))
    shares = []
    for drawn in draws:
        weights = np.bincount(drawn, minlength=count)
        shares.append(readout.spread(products, labels, weights).share)
    spread = readout.spread(products, labels)
    numbers = {
        "values": int(np.prod(features.shape[1:])),
        "active": None if floor is None else float((features > floor).mean()),
        "within": spread.within,
        "between": spread.between,
        "between / all": spread.share,
        "between / all, standard error": float(np.std(shares, ddof=1)),
        "class read out": accuracy(is_right),
        "class read out of map means": accuracy(is_right_by_means),
        "image read out (R2)": float(1 - error / variance),
    }
    return numbers, is_right


def accuracy(right: np.ndarray) -> list[float]:
    """Share, and its 95 % interval (Wilson 1927)."""
    test = binomtest(int(right.sum()), len(right))
    interval = test.proportion_ci(method="wilson")
    return [float(right.mean()), float(interval.low), float(interval.high)]


def confusion(logits: np.ndarray, labels: np.ndarray) -> Confusion:
    """The two classes most often taken for each other.

    If every image is read right, they are those of the image that comes nearest to an error.
    """
    is_own = np.eye(logits.shape[1], dtype=bool)[labels]
    others = np.where(is_own, -np.inf, logits)
    rival = others.argmax(1)
    margin = others.max(1) - logits[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(margin > 0)
    if not wrong.size:
        wrong = np.array([margin.argmax()])
    wrong = wrong[np.argsort(-margin[wrong], kind="stable")]
    pairs = np.sort(np.stack([rival[wrong], labels[wrong]], 1), 1)
    is_same = (pairs[:, None] == pairs).all(2)
    most_frequent = is_same.sum(1).argmax()
    images = wrong[is_same[most_frequent]]
    return Confusion(int(labels[images[0]]), int(rival[images[0]]), images)


def separate(
    config: Config, products: np.ndarray, labels: np.ndarray, pair: Confusion
) -> tuple[dict[str, Any], np.ndarray]:
    """How far two classes stand apart between their means, and the place of every image."""
    places = readout.positions(products, labels, pair.a, pair.b)
    of_a = places[labels == pair.a]
    of_b = places[labels == pair.b]
    key_a, key_b = jax.random.split(jax.random.key(config.seed))
    draws_a = _draw(key_a, of_a, config.bootstraps)
    draws_b = _draw(key_b, of_b, config.bootstraps)
    again = [readout.separation(a, b) for a, b in zip(draws_a, draws_b, strict=True)]
    facts = {
        "separation": readout.separation(of_a, of_b),
        "separation, 95 %": np.percentile(again, (2.5, 97.5)).tolist(),
        "nearer to the other mean": int(np.sum(of_a > 0.5) + np.sum(of_b < 0.5)),
        "the confused": places[pair.images].tolist(),
    }
    return facts, places


def _draw(key: jax.Array, values: np.ndarray, count: int) -> np.ndarray:
    """``count`` draws of as many values with replacement, ``[count, n]``."""
    size = len(values)
    return values[np.asarray(jax.random.randint(key, (count, size), 0, size))]


def exemplar_study(
    config: Config, model: oipjax.Model, activation: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, Any], Patterns]:
    """Each map's pattern beside its best digits.

    Patterns are found in the box of valid pixels, to which digits belong.
    """
    layer = model.default_layer
    key = jax.random.key(config.seed)
    atlas = oipjax.atlas(
        key,
        model,
        layer,
        maps=config.maps,
        space=oipjax.space_for(model, "box"),
        search=0,
        draws=config.draws,
        steps=config.steps,
        bounds="none",
    )
    scores = map_means(activation)[:, atlas.maps]
    strongest = exemplars(scores, config.keep)
    best = scores.max(0)
    is_found = atlas.status == FOUND
    responds = np.flatnonzero(is_found & (best > 0))
    if not responds.size:
        raise ValueError(
            f"no map of {layer} was found that responds to a digit; ask for more steps or maps"
        )
    purity = largest_share(labels[strongest[responds]])
    drawn = np.asarray(jax.random.randint(key, (2000, config.keep), 0, len(labels)))
    ratio = atlas.scores[responds, 0] / best[responds]
    facts = {
        "maps found that respond to a digit": len(responds),
        "found that respond to none": int(np.sum(is_found & (best <= 0))),
        "pattern / best digit, median and quartiles": np.percentile(ratio, (50, 25, 75)).tolist(),
        "pattern below the best digit": int(np.sum(ratio < 1)),
        f"largest share of one class in the best {config.keep}, mean": float(purity.mean()),
        "the same of random digits": float(largest_share(labels[drawn]).mean()),
        "maps whose best digits are all of one class": int(np.sum(purity == 1)),
    }
    return facts, Patterns(atlas, strongest)


def largest_share(labels: np.ndarray) -> np.ndarray:
    """The share of the most frequent class in each row of ``labels [n, r]``."""
    return np.array([np.bincount(row).max() / len(row) for row in labels])


def best_readers(scores: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, float]]:
    """For each class the column of ``scores [n, k]`` that tells it best from all others.

    Returns:
        Class, column and separation.
    """
    found = []
    for label in np.unique(labels):
        is_own = labels == label
        areas = [readout.separation(column[~is_own], column[is_own]) for column in scores.T]
        found.append((int(label), int(np.argmax(areas)), float(np.max(areas))))
    return found


def plot(
    rows: list[dict[str, Any]],
    places: np.ndarray,
    pair: Confusion,
    labels: np.ndarray,
    hidden: tuple[str, np.ndarray],
) -> Figure:
    """Numbers by layer; the confused classes by layer; the hidden layer's mean for each class."""
    figure = Figure(figsize=(13.2, 9.0), facecolor="white", layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    draw_readout(first, rows)
    draw_shares(second, rows)
    draw_separation(third, places, pair, labels)
    draw_class_means(figure, fourth, *hidden, np.unique(labels))
    for axes in (first, second, third):
        axes.set_xticks(np.arange(len(rows)), [row["layer"] for row in rows])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, edgecolor="none", framealpha=0.9)
    for axes in (first, second, third, fourth):
        axes.tick_params(labelsize=8, colors="#444444")
    return figure


def title(axes: Axes, text: str) -> None:
    """The heading of a panel."""
    axes.set_title(text, fontsize=10, loc="left", fontweight="bold")


def draw_readout(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """How well the class is read out, by layer."""
    place = np.arange(len(rows))
    looks = {"class read out": (BLUE, "o-"), "class read out of map means": (GREEN, "^-")}
    for name, (colour, mark) in looks.items():
        middle, low, high = 100 * np.transpose([row[name] for row in rows])
        error = (middle - low, high - middle)
        style = {"markersize": 5, "capsize": 2, "linewidth": 1.5}
        axes.errorbar(place, middle, error, fmt=mark, color=colour, label=name, **style)
    axes.set_ylabel("right, of digits not seen in fitting (%)", fontsize=9)
    title(axes, "How well a linear read-out tells the class")


def draw_shares(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """The spread between classes, the image that is left, and active nodes, by layer."""
    place = np.arange(len(rows))
    share = 100 * np.array([row["between / all"] for row in rows])
    error = 196 * np.array([row["between / all, standard error"] for row in rows])
    style = {"color": BLUE, "markersize": 5, "capsize": 2}
    axes.errorbar(place, share, error, fmt="o-", label="spread between classes / all", **style)
    pixels = [100 * row["image read out (R2)"] for row in rows]
    label = "pixels' variance read out linearly"
    axes.plot(place, pixels, "s-", color=INACTIVE, markersize=5, label=label)
    active = [np.nan if row["active"] is None else 100 * row["active"] for row in rows]
    axes.plot(place, active, "^--", color=FAINT, markersize=5, label="nodes that are active")
    axes.set_ylim(0, 102)
    axes.set_ylabel("%", fontsize=9)
    title(axes, "From the image to its class")


def draw_separation(axes: Axes, places: np.ndarray, pair: Confusion, labels: np.ndarray) -> None:
    """Where the images of two classes stand between their means, by layer ``[layers, n]``."""
    layers = np.arange(len(places))
    halves: Any = ((pair.a, BLUE, "low"), (pair.b, INACTIVE, "high"))
    for label, colour, side in halves:
        own = [row[labels == label] for row in places]
        drawn: Any = axes.violinplot(own, layers, widths=0.75, showextrema=False, side=side)
        for body in drawn["bodies"]:
            body.set(facecolor=colour, alpha=0.45, linewidth=0)
        axes.plot([], [], "s", color=colour, alpha=0.45, markersize=8, label=f"all {label}s")
    for mark, image in zip("oDv", pair.images, strict=False):
        label = f"image {image}, class {labels[image]}"
        style = {"color": INK, "markersize": 4.5, "linewidth": 0.8}
        axes.plot(layers, places[:, image], f"{mark}-", label=label, **style)
    axes.axhline(0.5, color=FAINT, linewidth=1, linestyle=":")
    axes.set_ylabel(f"from the mean {pair.a} (0) to the mean {pair.b} (1)", fontsize=9)
    title(axes, f"Where {pair.a} and {pair.b} separate")


def draw_class_means(
    figure: Figure, axes: Axes, name: str, means: np.ndarray, classes: np.ndarray
) -> None:
    """Mean activations ``[m, k]`` of a layer for each class, nodes ordered by their class."""
    highest = means.max(0)
    class_of_node = np.where(highest > 0, means.argmax(0), len(means))
    order = np.lexsort((-highest, class_of_node))
    style = {"aspect": "auto", "cmap": "magma", "interpolation": "nearest", "vmin": 0}
    drawn = axes.imshow(means[:, order], **style)
    axes.set_yticks(range(len(means)), list(map(str, classes)))
    axes.set_ylabel("class", fontsize=9)
    axes.set_xlabel("nodes, ordered by the class that excites them most", fontsize=9)
    title(axes, f"Mean activation of {name} for each class")
    figure.colorbar(drawn, ax=axes, pad=0.01).ax.tick_params(labelsize=8)


def pictures(
    config: Config,
    model: oipjax.Model,
    split: Split,
    activations: dict[str, np.ndarray],
    pair: Confusion,
    patterns: Patterns,
) -> dict[str, Figure]:
    """Maps of images of one class, of a confused image, and patterns beside digits."""
    logits = activations["logits"]
    labels = split.labels
    drawn = [name for name in activations if model.layer(name).kind != "pool"]

    def maps_of(heading: str, chosen: list[int], note: str) -> Figure:
        captions = []
        for i in chosen:
            captions.append(f"image {i}\nclass {labels[i]}, read as {logits[i].argmax()}")
        values = {name: activations[name][chosen] for name in drawn}
        return maps_figure(heading, split.images[chosen] / 255.0, captions, values, note)

    def clearest(label: int) -> int:
        own = np.flatnonzero(labels == label)
        return int(own[logits[own, label].argmax()])

    a, b, images = pair
    of_class = maps_of(
        f"Three images of class {config.digit}, layer by layer",
        np.flatnonzero(labels == config.digit)[:3].tolist(),
        "Down a column: what is left of an image. Along a row: what images have in common.",
    )
    confused = maps_of(
        f"{a} or {b}? An unclear image between a clear {a} and a clear {b}",
        [clearest(a), int(images[0]), clearest(b)],
        "Clear: with the largest logit of its class.",
    )
    scores = map_means(activations[model.default_layer])[:, patterns.atlas.maps]
    beside = beside_digits(model.default_layer, split, scores, patterns)
    return {"class": of_class, "confused": confused, "exemplars": beside}


def beside_digits(layer: str, split: Split, scores: np.ndarray, patterns: Patterns) -> Figure:
    """For each class the map that tells it best: its pattern, and the digits that excite it."""
    atlas, strongest = patterns
    found = np.flatnonzero(atlas.status == FOUND)
    readers = best_readers(scores[:, found], split.labels)
    rows = found[[column for _, column, _ in readers]]
    reasons = [f"tells {label} from\nothers: {area:.3f}" for label, _, area in readers]
    note = (
        "For each class the map whose mean tells it best (chance that a digit of the class excites "
        f"it more than another one does). Below: scores. {len(split.labels):,} digits."
    )
    return exemplars_figure(
        f"Maps of {layer}: their patterns, and the digits that excite them most",
        [f"map {index}" for index in atlas.maps[rows]],
        reasons,
        atlas.images[rows, 0],
        atlas.scores[rows, 0].tolist(),
        split.images[strongest[rows]] / 255.0,
        np.take_along_axis(scores.T, strongest, 1)[rows],
        note,
    )


def compare_layers(names: list[str], right: list[np.ndarray]) -> list[list[Any]]:
    """Digits read out right by one of two neighbouring layers alone, with an exact McNemar test."""
    steps = []
    for i in range(len(names) - 1):
        later_alone = int((right[i + 1] & ~right[i]).sum())
        earlier_alone = int((right[i] & ~right[i + 1]).sum())
        either = max(1, later_alone + earlier_alone)
        p = float(binomtest(later_alone, either).pvalue)
        steps.append([names[i], names[i + 1], later_alone, earlier_alone, p])
    return steps


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    split = digits(config)
    labels = split.labels
    inputs = model.to_input(split.images)
    layers = tuple(dict.fromkeys((*config.layers, model.default_layer, "logits")))
    activations = layer_activations(model, inputs, layers)
    pair = confusion(activations["logits"], labels)
    rows = []
    right = []
    places = []
    for name in (PIXELS, *config.layers):
        features = inputs if name == PIXELS else activations[name]
        floor = float(inputs.min()) if name == PIXELS else model.layer(name).floor
        products = readout.gram(features)
        numbers, is_right = measure(config, features, products, split, floor)
        facts, place = separate(config, products, labels, pair)
        rows.append({"layer": name, **numbers, **facts})
        right.append(is_right)
        places.append(place)
    names = [row["layer"] for row in rows]
    own = activations["logits"].argmax(1) == labels
    measures = [name for name in rows[0] if name != "layer"]
    cells = [[name, *(text(row[name]) for row in rows)] for name in measures]
    show(f"{len(own)} digits; the network itself: {accuracy(own)}", ["", *names], cells)
    steps = compare_layers(names, right)
    heading = "read out right by the later layer alone, by the earlier alone (exact McNemar test)"
    show(heading, ["from", "to", "later", "earlier", "p"], steps)
    facts, patterns = exemplar_study(config, model, activations[model.default_layer], labels)
    show("maps and digits", ["", ""], [[name, text(value)] for name, value in facts.items()])
    content = {
        "config": asdict(config),
        "digits": len(own),
        "network": accuracy(own),
        "layers": rows,
        "steps": steps,
        "confused": {"classes": [pair.a, pair.b], "images": pair.images.tolist()},
        "exemplars": facts,
    }
    behind_relu = [name for name in config.layers if model.layer(name).pre is not None]
    hidden = behind_relu[-1]
    _, means = class_means(map_means(activations[hidden]), labels)
    figure = plot(rows, np.stack(places), pair, labels, (hidden, means))
    save(results, "activation_patterns", content, figure)
    drawn = pictures(config, model, split, activations, pair, patterns)
    for name, picture in drawn.items():
        picture.savefig(results / f"activation_patterns_{name}.png", dpi=150)
    return content


def text(value: Any) -> str:
    """A cell of a table."""
    if isinstance(value, list):
        return " ".join(f"{one:.3g}" for one in value)
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
