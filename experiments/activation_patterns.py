"""What is left of a digit in each layer, and where can its class be told?

Question: how far do the classes lie apart in the activations of each layer, how well does a linear
    read-out tell them,
how much of the image can be read out, and where do two classes separate that the network confuses?
Which digits excite each map most, and how do they compare with its pattern?
Expected: as the source series describes (R. Moenchmeyer, "A simple CNN for the MNIST dataset",
    parts IV to VI): figures
are still seen in the first layer and gone in the third; patterns of confusable digits look alike in
the third layer, and the dense layer tells them apart. In numbers: from layer to layer the class is
easier, the image harder to read out. Cost: a minute of two cores.
Command: python -m experiments.activation_patterns
(OIPJAX_DATA=folder python -m experiments.activation_patterns --images 2000: more digits, ten times
as long)
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
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


@dataclass(frozen=True)
class Config:
    """The first ``images`` of MNIST's test set; more than the 1,000 that ship with oipjax are read by `data.load`."""

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
    images=200, layers=("conv3", "logits"), folds=2, bootstraps=5, keep=3, draws=64, steps=4, maps=(3, 50, 120)
)  # fmt: skip


def digits(config: Config) -> Split:
    """Test images and their labels."""
    split = data.sample() if config.images <= len(data.sample().images) else data.load().test
    if config.images > len(split.images):
        raise ValueError(f"images must be at most {len(split.images)}, got {config.images}")
    return Split(split.images[: config.images], split.labels[: config.images])


def read_out(
    config: Config,
    name: str,
    features: np.ndarray,
    products: np.ndarray,
    split: Split,
    floor: float | None,
) -> dict[str, Any]:
    """All that is said of one layer."""
    key, labels = jax.random.key(config.seed), split.labels
    fold = readout.folds(key, labels, config.folds)
    one_hot, pixels = np.eye(10)[labels], split.images.reshape(len(labels), -1) / 255
    right = readout.ridge(products, one_hot, fold).argmax(1) == labels
    by_means = readout.ridge(readout.gram(map_means(features)), one_hot, fold).argmax(1) == labels
    seen = readout.ridge(products, pixels, fold)
    drawn = np.asarray(
        jax.random.randint(
            jax.random.fold_in(key, 1), (config.bootstraps, len(labels)), 0, len(labels)
        )
    )
    shares = [
        readout.spread(products, labels, np.bincount(d, minlength=len(labels))).share for d in drawn
    ]
    found = readout.spread(products, labels)
    return {
        "layer": name, "values": int(np.prod(features.shape[1:])),
        "active": None if floor is None else float((features > floor).mean()),
        "within": found.within, "between": found.between, "between / all": found.share,
        "between / all, standard error": float(np.std(shares, ddof=1)),
        "class read out": accuracy(right), "class read out of map means": accuracy(by_means),
        "image read out (R2)": float(1 - np.sum((seen - pixels) ** 2) / np.sum((pixels - pixels.mean(0)) ** 2)),
        "right": right,
    }  # fmt: skip


def accuracy(right: np.ndarray) -> list[float]:
    """Share, and its 95 % interval (Wilson 1927)."""
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return [float(right.mean()), float(interval.low), float(interval.high)]


def confused_pair(logits: np.ndarray, labels: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The two classes most often taken for each other, and the images of them that are, the clearest error first.

    The first class is that of the clearest error, the second what it is read as. If every image is
    read right, the pair is that of the image that comes nearest to an error.
    """
    place = np.arange(len(labels))
    others = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits)
    rival, margin = others.argmax(1), others.max(1) - logits[place, labels]
    wrong = np.flatnonzero(margin > 0) if (margin > 0).any() else np.array([margin.argmax()])
    wrong = wrong[np.argsort(-margin[wrong], kind="stable")]
    pairs = np.sort(np.stack([rival, labels], 1)[wrong], 1)
    same = (pairs[:, None] == pairs).all(2)
    images = wrong[same[same.sum(1).argmax()]]
    return int(labels[images[0]]), int(rival[images[0]]), images


def separate(
    config: Config, products: np.ndarray, labels: np.ndarray, a: int, b: int
) -> tuple[dict[str, Any], np.ndarray]:
    """How far two classes stand apart along the way between their means, and where every image stands."""
    stands = readout.positions(products, labels, a, b)
    of_a, of_b = stands[labels == a], stands[labels == b]
    keys = jax.random.split(jax.random.key(config.seed))
    drawn = [of[np.asarray(jax.random.randint(key, (config.bootstraps, len(of)), 0, len(of)))]
             for key, of in zip(keys, (of_a, of_b), strict=True)]  # fmt: skip
    again = [readout.separation(*both) for both in zip(*drawn, strict=True)]
    facts = {
        "separation": readout.separation(of_a, of_b),
        "separation, 95 %": np.percentile(again, (2.5, 97.5)).tolist(),
        "nearer to the other mean": int(np.sum(of_a > 0.5) + np.sum(of_b < 0.5)),
    }
    return facts, stands


def exemplar_study(
    config: Config, model: oipjax.Model, activation: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, Any], Atlas, np.ndarray]:
    """Each map's pattern (in the box of valid pixels, so that digits are its equals) beside its best digits."""
    layer = model.default_layer
    atlas = oipjax.atlas(
        jax.random.key(config.seed), model, layer, maps=config.maps, space=oipjax.space_for(model, "box"), search=0,
        draws=config.draws, steps=config.steps, bounds="none",
    )  # fmt: skip
    scores = map_means(activation)[:, atlas.maps]
    best = exemplars(scores, config.keep)
    responds = np.flatnonzero((atlas.status == FOUND) & (scores.max(0) > 0))
    if not responds.size:
        raise ValueError(
            f"no map of {layer} was found that responds to a digit; ask for more steps or maps"
        )
    shown = labels[best[responds]]
    purity = [np.bincount(row).max() / config.keep for row in shown]
    rng = np.asarray(
        jax.random.randint(jax.random.key(config.seed), (2000, config.keep), 0, len(labels))
    )
    ratio = atlas.scores[responds, 0] / scores.max(0)[responds]
    facts = {
        "maps found that respond to a digit": len(responds),
        "found that respond to none": int(np.sum((atlas.status == FOUND) & (scores.max(0) <= 0))),
        "pattern / best digit, median and quartiles": np.percentile(ratio, (50, 25, 75)).tolist(),
        "pattern below the best digit": int(np.sum(ratio < 1)),
        f"largest share of one class in the best {config.keep}, mean": float(np.mean(purity)),
        "the same of random digits": float(
            np.mean([np.bincount(labels[row]).max() / config.keep for row in rng])
        ),
        "maps whose best digits are all of one class": int(np.sum(np.array(purity) == 1)),
    }
    return facts, atlas, best


def tellers(scores: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, float]]:
    """For each class the map (column of ``scores``) that tells it best from all others: class, map, separation."""
    told = []
    for c in np.unique(labels):
        areas = [
            readout.separation(column[labels != c], column[labels == c]) for column in scores.T
        ]
        told.append((int(c), int(np.argmax(areas)), float(np.max(areas))))
    return told


def plot(
    rows: list[dict[str, Any]], stands: np.ndarray, pair: tuple[int, int, np.ndarray], labels: np.ndarray,
    dense: tuple[str, np.ndarray],
) -> Figure:  # fmt: skip
    """Numbers by layer; the two confused classes by layer; the last hidden layer's mean for each class."""
    figure = Figure(figsize=(13.2, 9.0), facecolor="white", layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    names, at = [row["layer"] for row in rows], np.arange(len(rows))
    for what, colour, mark in (
        ("class read out", BLUE, "o-"),
        ("class read out of map means", GREEN, "^-"),
    ):
        middle, low, high = 100 * np.transpose([row[what] for row in rows])
        first.errorbar(at, middle, (middle - low, high - middle), fmt=mark, color=colour, markersize=5, capsize=2,
                       linewidth=1.5, label=what)  # fmt: skip
    first.set_ylabel("right, of digits not seen in fitting (%)", fontsize=9)
    first.set_title(
        "How well a linear read-out tells the class", fontsize=10, loc="left", fontweight="bold"
    )
    share = 100 * np.array([row["between / all"] for row in rows])
    error = 196 * np.array([row["between / all, standard error"] for row in rows])
    second.errorbar(
        at,
        share,
        error,
        fmt="o-",
        color=BLUE,
        markersize=5,
        capsize=2,
        label="spread between classes / all",
    )
    second.plot(at, [100 * row["image read out (R2)"] for row in rows], "s-", color=INACTIVE, markersize=5,
                label="pixels' variance read out linearly")  # fmt: skip
    active = [np.nan if row["active"] is None else 100 * row["active"] for row in rows]
    second.plot(at, active, "^--", color=FAINT, markersize=5, label="nodes that are active")
    second.set(ylim=(0, 102))
    second.set_ylabel("%", fontsize=9)
    second.set_title("From the image to its class", fontsize=10, loc="left", fontweight="bold")
    a, b, images = pair
    for cls, colour, side in ((a, BLUE, -1), (b, INACTIVE, 1)):
        parts = third.violinplot([row[labels == cls] for row in stands], at, widths=0.75, showextrema=False,
                                 side="low" if side < 0 else "high")  # fmt: skip
        for body in parts["bodies"]:  # pyright: ignore[reportGeneralTypeIssues]
            body.set(facecolor=colour, alpha=0.45, linewidth=0)
        third.plot([], [], "s", color=colour, alpha=0.45, markersize=8, label=f"all {cls}s")
    for number, image in enumerate(images[:3]):
        third.plot(at, stands[:, image], "oDv"[number] + "-", color=INK, markersize=4.5, linewidth=0.8,
                   label=f"image {image}, class {labels[image]}")  # fmt: skip
    third.axhline(0.5, color=FAINT, linewidth=1, linestyle=":")
    third.set_ylabel(f"way from the mean {a} (0) to the mean {b} (1)", fontsize=9)
    third.set_title(f"Where {a} and {b} separate", fontsize=10, loc="left", fontweight="bold")
    name, means = dense
    order = np.lexsort((-means.max(0), np.where(means.max(0) > 0, means.argmax(0), len(means))))
    drawn = fourth.imshow(
        means[:, order], aspect="auto", cmap="magma", interpolation="nearest", vmin=0
    )
    fourth.set_yticks(range(len(means)), [str(c) for c in np.unique(labels)])
    fourth.set_ylabel("class", fontsize=9)
    fourth.set_xlabel(
        "nodes, in the order of the class that they answer most; those that answer none are last",
        fontsize=9,
    )
    fourth.set_title(
        f"Mean activation of {name} for each class", fontsize=10, loc="left", fontweight="bold"
    )
    figure.colorbar(drawn, ax=fourth, pad=0.01).ax.tick_params(labelsize=8)
    for axes in (first, second, third):
        axes.set_xticks(at, names)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, edgecolor="none", framealpha=0.9)
    for axes in (first, second, third, fourth):
        axes.tick_params(labelsize=8, colors="#444444")
    return figure


def pictures(
    config: Config, model: oipjax.Model, split: Split, found: dict[str, np.ndarray], pair: tuple[int, int, np.ndarray],
    atlas: Atlas, best: np.ndarray,
) -> dict[str, Figure]:  # fmt: skip
    """Maps of several images of one class; of the confused image between typical ones; patterns beside digits."""
    shown = [name for name in found if not name.startswith("pool")]
    logits, labels = found["logits"], split.labels
    a, b, images = pair

    def maps_of(title: str, chosen: list[int], note: str) -> Figure:
        captions = [f"image {i}\nclass {labels[i]}, read as {logits[i].argmax()}" for i in chosen]
        return maps_figure(
            title,
            split.images[chosen] / 255.0,
            captions,
            {n: found[n][chosen] for n in shown},
            note,
        )

    typical = [int(np.flatnonzero(labels == c)[logits[labels == c, c].argmax()]) for c in (a, b)]
    scores = map_means(found[model.default_layer])[:, atlas.maps]
    alive = np.flatnonzero(atlas.status == FOUND)
    told = tellers(scores[:, alive], labels)
    rows = alive[[k for _, k, _ in told]]
    values = np.take_along_axis(scores.T, best, 1)[rows]
    return {
        "class": maps_of(f"Three images of class {config.digit}, layer by layer",
                         np.flatnonzero(labels == config.digit)[:3].tolist(),
                         "Down a column: what is left of an image. Along a row: what images have in common."),
        "confused": maps_of(f"{a} or {b}? An unclear image between a clear {a} and a clear {b}",
                            [typical[0], int(images[0]), typical[1]],
                            "Clear: with the largest logit of its class."),
        "exemplars": exemplars_figure(
            f"Maps of {model.default_layer}: their patterns, and the digits that excite them most",
            [f"map {k}" for k in atlas.maps[rows]],
            [f"tells {c} from\nothers: {area:.3f}" for c, _, area in told], atlas.images[rows, 0],
            atlas.scores[rows, 0].tolist(), split.images[best[rows]] / 255.0, values,
            f"For each class the map whose mean tells it best (chance that a digit of the class excites it more than "
            f"another one does). Below: scores. {len(labels):,} digits."),
    }  # fmt: skip


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model, split = oipjax.load(config.checkpoint), digits(config)
    inputs = model.to_input(split.images)
    layers = tuple(dict.fromkeys((*config.layers, model.default_layer, "logits")))
    found = layer_activations(model, inputs, layers)
    spaces = {"pixels": inputs, **{name: found[name] for name in config.layers}}
    floors = {name: model.layer(name).floor for name in config.layers} | {
        "pixels": float(inputs.min())
    }
    grams = {name: readout.gram(array) for name, array in spaces.items()}
    rows = [
        read_out(config, name, spaces[name], grams[name], split, floors[name]) for name in spaces
    ]
    pair = confused_pair(found["logits"], split.labels)
    standing = [separate(config, products, split.labels, *pair[:2]) for products in grams.values()]
    for row, (facts, stands) in zip(rows, standing, strict=True):
        row |= facts | {"the confused": stands[pair[2]].tolist()}
    right = np.stack([row.pop("right") for row in rows])
    steps = [
        [a["layer"], b["layer"], int((y & ~x).sum()), int((x & ~y).sum()),
         float(binomtest(int((y & ~x).sum()), max(1, int((x ^ y).sum()))).pvalue)]
        for a, b, x, y in zip(rows, rows[1:], right, right[1:], strict=False)
    ]  # fmt: skip
    own = found["logits"].argmax(1) == split.labels
    names = [name for name in rows[0] if name != "layer"]
    show(f"{len(own)} digits; the network itself: {accuracy(own)}", ["", *spaces],
         [[name, *(text(row[name]) for row in rows)] for name in names])  # fmt: skip
    show("read out right by the later layer alone, by the earlier alone (exact McNemar test)",
         ["from", "to", "later", "earlier", "p"], steps)  # fmt: skip
    facts, atlas, best = exemplar_study(config, model, found[model.default_layer], split.labels)
    show("maps and digits", ["", ""], [[name, text(value)] for name, value in facts.items()])
    content = {"config": asdict(config), "digits": len(own), "network": accuracy(own), "layers": rows, "steps": steps,
               "confused": {"classes": pair[:2], "images": pair[2].tolist()}, "exemplars": facts}  # fmt: skip
    hidden = next(name for name in reversed(config.layers) if name in model.nonlinearities)
    means = class_means(map_means(found[hidden]), split.labels)[1]
    figure = plot(
        rows, np.stack([stands for _, stands in standing]), pair, split.labels, (hidden, means)
    )
    save(results, "activation_patterns", content, figure)
    for name, picture in pictures(config, model, split, found, pair, atlas, best).items():
        picture.savefig(results / f"activation_patterns_{name}.png", dpi=150)
    return content


def text(value: Any) -> str:
    """A cell of a table."""
    if isinstance(value, list):
        return " ".join(f"{one:.3g}" for one in value)
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
