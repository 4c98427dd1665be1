"""What does the network think a 4 is, and does another network agree?

Question: which images raise a class most: its logit, its log-probability, a sum of the maps that
its digits excite, the mean pattern of its digits in the last convolution or in the dense layer? How
sure is the network itself of the class of such an image, how often do other networks, trained alike
from other seeds, give it the same class, and does it resemble the mean digit?
Expected: the network is certain of every such image. Others agree more often than by chance (10 %)
and far less often than on digits (99 %); smooth images and those inside the box of valid pixels
carry over better. None looks like a digit at first sight, but most are more like the mean digit of
their class than like those of the nine others.
Cost: about 2 minutes of two cores.
Command: python -m experiments.class_patterns

Further networks: --others folder folder; --seeds 1 2 trains them first.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, network, save, show
from oipjax import Class, Direction, Map, TotalVariation
from oipjax.analysis import map_means, similarity
from oipjax.data import mnist as data
from oipjax.objectives import Objective
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.search import make_starts

RESULTS = Path(__file__).parent / "results"
GREEN = "#009E73"
RANDOM = "random starts (meant: own answer)"


@dataclass(frozen=True)
class LogProbability(Map):
    """The logarithm of a class's probability.

    Unlike the logit it also grows when the logits of other classes fall.
    """

    layer: str = "logits"

    def __call__(self, activations, image, target):
        """See `Objective`."""
        return jnp.take(jax.nn.log_softmax(activations[self.layer]), target, axis=0)


@dataclass(frozen=True)
class Config:
    """The networks, and what is climbed.

    Attributes:
        checkpoint: the network whose classes are climbed.
        others: names or folders of the networks that judge.
        seeds: further networks that judge, trained unless they are there.
        goals: names of the objectives.
        spaces: names of the image spaces.
        starts: random starts of each class.
        steps: of each ascent.
        maps: number of maps in a sum.
        smooth: weight of the total variation beside a logit, or beside a direction that is scaled
            to the logit of digits; with 30 the images are about as smooth as digits.
        smooth_log: its weight beside a log-probability, which cannot rise above 0.
        seed: of the starts.
    """

    checkpoint: str = "mnist-cnn"
    others: tuple[str, ...] = ("mnist-cnn-seed1",)
    seeds: tuple[int, ...] = ()
    goals: tuple[str, ...] = (
        "logit",
        "log-probability",
        "sum of maps",
        "maps' mean pattern",
        "dense mean pattern",
    )
    spaces: tuple[str, ...] = ("standardised", "box")
    starts: int = 16
    steps: int = 100
    maps: int = 8
    smooth: float = 30.0
    smooth_log: float = 1.0
    seed: int = 0


SMOKE = Config(others=("mnist-cnn",), goals=("sum of maps",), spaces=("box",), starts=2, steps=2)


@dataclass(frozen=True)
class Goal:
    """An objective to climb for all classes.

    Attributes:
        name: in tables.
        objective: the objective.
        targets: one for each class.
        smooth: weight of the total variation in the smooth variant.
    """

    name: str
    objective: Objective
    targets: np.ndarray
    smooth: float

    def climb(self, config: Config, model: oipjax.Model, space: str, smooth: bool) -> np.ndarray:
        """Images ``[class, start, h, w, c]``, all classes from the same random starts."""
        classes = len(self.targets)
        objective = self.objective
        targets: Any = np.repeat(self.targets, config.starts, axis=0)
        if smooth:
            objective = objective - self.smooth * TotalVariation()
            targets = (targets,)
        run = oipjax.ascend(
            jax.random.key(config.seed),
            model,
            objective,
            targets,
            np.tile(np.arange(config.starts), classes),
            space=oipjax.space_for(model, space),
            steps=config.steps,
        )
        return run.images.reshape(classes, config.starts, *model.input_shape)


def goals(
    config: Config, model: oipjax.Model, digits: np.ndarray, labels: np.ndarray
) -> list[Goal]:
    """The objectives; directions are made of the activations of digits ``[n, h, w, c]``."""
    activations = answers(model, digits)
    classes = np.arange(len(model.classes))
    logits = activations["logits"]
    own_logits = np.array([logits[labels == label, label].mean() for label in classes])

    def direction(name: str, layer: str, strongest: int | None = None) -> Goal:
        scores = map_means(activations[layer])
        means = np.stack([scores[labels == label].mean(0) for label in classes])
        toward = means - means.mean(0)
        if strongest is not None:
            rank = toward.argsort(1).argsort(1)
            toward = (rank >= toward.shape[1] - strongest).astype(np.float32)
        # Scaled to the logits of digits, so that one weight of the total variation suits all.
        along = (toward * means).sum(1)
        toward *= (own_logits / along)[:, None]
        return Goal(name, Direction(layer), toward, config.smooth)

    known = (
        Goal("logit", Class(), classes, config.smooth),
        Goal("log-probability", LogProbability(), classes, config.smooth_log),
        direction("sum of maps", model.default_layer, config.maps),
        direction("maps' mean pattern", model.default_layer),
        direction("dense mean pattern", hidden_dense(model)),
    )
    names = [goal.name for goal in known]
    unknown = sorted(set(config.goals) - set(names))
    if unknown or not config.goals:
        raise ValueError(f"unknown goals {unknown}; there are {', '.join(names)}")
    return [goal for goal in known if goal.name in config.goals]


def hidden_dense(model: oipjax.Model) -> str:
    """The last hidden dense layer."""
    names = [name for name in model.nonlinearities if len(model.shapes[name]) == 1]
    if not names or len(model.classes) != model.shapes["logits"][-1]:
        raise ValueError(
            f"{model.name}: expected a classifier with a hidden dense layer; it has {model.layers}"
        )
    return names[-1]


def answers(model: oipjax.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Activations of all layers for network inputs ``[n, h, w, c]``."""
    activations = jax.jit(model.apply)(model.params, images)
    return {name: np.asarray(value) for name, value in activations.items()}


def probabilities(model: oipjax.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities of the classes, ``[n, classes]``; all networks take the same inputs."""
    logits = answers(model, images)["logits"]
    return np.asarray(jax.nn.softmax(jnp.asarray(logits)))


def error(values: np.ndarray) -> float | None:
    """Standard error of the mean; None of a single value."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def judgement(
    model: oipjax.Model, others: Sequence[oipjax.Model], images: np.ndarray, meant: np.ndarray
) -> dict[str, Any]:
    """The classes that the networks give to images.

    The standard error is over the classes: images of one class are alike, and networks judge the
    same ones.

    Args:
        model: the network that the images come from.
        others: the networks that judge.
        images: ``[n, h, w, c]``.
        meant: the classes ``[n]`` that the images are meant to show.
    """
    place = np.arange(len(meant))
    own = probabilities(model, images)
    theirs = np.stack([probabilities(other, images) for other in others])
    agrees = theirs.argmax(2) == meant
    by_class = {}
    errors = {}
    for label in np.unique(meant).tolist():
        own_class = agrees[:, meant == label]
        by_class[label] = float(own_class.mean())
        errors[label] = error(own_class.mean(0))
    shares = np.array(list(by_class.values()))
    return {
        "own top-1": float(np.mean(own.argmax(1) == meant)),
        "own confidence": float(own[place, meant].mean()),
        "others agree": float(shares.mean()),
        "standard error": error(shares),
        "others' confidence": float(theirs[:, place, meant].mean()),
        "by network": agrees.mean(1).tolist(),
        "by class": by_class,
        "by class, standard error over images": errors,
    }


def likeness(images: np.ndarray, means: np.ndarray, meant: np.ndarray) -> dict[str, float]:
    """Similarity of images to the mean digits ``[classes, h, w, c]`` and to each other."""
    classes = len(means)
    correlation, _ = similarity(np.concatenate([means, images]))
    to_means = correlation[classes:, :classes]
    to_images = correlation[classes:, classes:]
    is_pair = np.triu(meant[:, None] == meant, 1)
    own = to_means[np.arange(len(meant)), meant]
    return {
        "similarity to its mean digit": float(own.mean()),
        "most like that one": float(np.mean(to_means.argmax(1) == meant)),
        "similarity of two of a class": float(np.median(to_images[is_pair])),
    }


class Pictures(NamedTuple):
    """A row of the figure: images ``[class, h, w, c]``, their name and image space."""

    name: str
    space: str
    images: np.ndarray

    @property
    def is_smooth(self) -> bool:
        """Whether total variation was subtracted."""
        return "smooth" in self.name


def judge(
    config: Config, model: oipjax.Model, others: Sequence[oipjax.Model]
) -> tuple[list[dict[str, Any]], list[Pictures]]:
    """Rows of the table, and rows of the figure."""
    sample = data.sample()
    digits = model.to_input(sample.images)
    labels = sample.labels.astype(int)
    classes = np.arange(len(model.classes))
    means = np.stack([digits[labels == label].mean(0) for label in classes])
    few = slice(20 * len(classes))
    of_digits = judgement(model, others, digits, labels)
    of_digits |= likeness(digits[few], means, labels[few])
    of_means = judgement(model, others, means, classes)
    rows = [
        {"images": "digits", "space": "", **of_digits},
        {"images": "mean digits", "space": "", **of_means},
    ]
    clearest = clearest_digits(model, digits, labels)
    pictures = [
        Pictures("mean digit", "", means),
        Pictures("digit of the highest logit", "", clearest),
    ]
    meant = np.repeat(classes, config.starts)
    for name in config.spaces:
        space = oipjax.space_for(model, name)
        noise = make_starts(jax.random.key(config.seed), space, np.arange(len(meant)))
        own = probabilities(model, noise).argmax(1)
        rows.append({"images": RANDOM, "space": name, **judgement(model, others, noise, own)})
        for goal in goals(config, model, digits, labels):
            for smooth in (False, True):
                images = goal.climb(config, model, name, smooth)
                label = goal.name + ", smooth" * smooth
                flat = images.reshape(-1, *model.input_shape)
                measured = judgement(model, others, flat, meant) | likeness(flat, means, meant)
                rows.append({"images": label, "space": name, **measured})
                pictures.append(Pictures(label, name, images[:, 0]))
    return rows, pictures


def clearest_digits(model: oipjax.Model, digits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each class the digit of the highest logit."""
    logits = answers(model, digits)["logits"]
    best = []
    for label in range(len(model.classes)):
        own = np.flatnonzero(labels == label)
        best.append(own[logits[own, label].argmax()])
    return digits[best]


def plot(
    model: oipjax.Model,
    others: Sequence[oipjax.Model],
    rows: list[dict[str, Any]],
    pictures: list[Pictures],
) -> Figure:
    """Images of every class, the class another network gives them, and how often others agree."""
    plain_space = pictures[2].space
    smooth_space = pictures[-1].space
    shown = []
    for row in pictures:
        wanted = smooth_space if row.is_smooth else plain_space
        if row.space in ("", wanted):
            shown.append(row)
    high = 0.6 + 0.78 * len(shown)
    figure = Figure(figsize=(13.2, high), facecolor="white")
    title = f"{model.name} \N{MIDDLE DOT} what does the network think a digit is?"
    style: dict[str, Any] = {"va": "center"}
    bold: dict[str, Any] = {"fontsize": 15, "fontweight": "bold", "color": INK}
    figure.text(0.02, 1 - 0.22 / high, title, **bold, **style)
    note = (
        f"Below each image: the class that {others[0].name} gives it and how sure it is; "
        "orange where it is another class."
    )
    figure.text(0.02, 1 - 0.5 / high, note, fontsize=9, color=FAINT, **style)
    edges = {"left": 0.15, "right": 0.65, "top": 1 - 0.68 / high, "bottom": 0.25 / high}
    grid = figure.add_gridspec(len(shown), len(model.classes), hspace=0.28, wspace=0.05, **edges)
    for line, row in enumerate(shown):
        panels = [figure.add_subplot(grid[line, c]) for c in range(len(row.images))]
        draw_classes(panels, model, others[0], row)
    panel = figure.add_axes((0.8, 0.8 / high, 0.185, 1 - 1.6 / high))
    draw_agreement(panel, rows, len(others), len(model.classes))
    return figure


def draw_classes(
    panels: Sequence[Axes], model: oipjax.Model, judge: oipjax.Model, row: Pictures
) -> None:
    """An image of each class, and the class that a network gives it."""
    probability = probabilities(judge, row.images)
    for meant, (axes, image) in enumerate(zip(panels, row.images, strict=True)):
        axes.imshow(contrast(image, 2.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        given = int(probability[meant].argmax())
        text = f"{model.classes[given]}: {100 * probability[meant, given]:.0f} %"
        colour = INK if given == meant else INACTIVE
        axes.set_xlabel(text, fontsize=7, labelpad=1, color=colour)
    text = f"{row.name}\n{row.space}".strip()
    place: dict[str, Any] = {"transform": panels[0].transAxes, "ha": "right", "va": "center"}
    panels[0].text(-0.15, 0.5, text, fontsize=8, color=INK, **place)


def colour_of(row: dict[str, Any]) -> str:
    """The colour of a bar, by its image space; digits and random starts are grey."""
    if not row["space"] or row["images"] == RANDOM:
        return FAINT
    return BLUE if row["space"] == "standardised" else GREEN


def draw_agreement(axes: Axes, rows: list[dict[str, Any]], others: int, classes: int) -> None:
    """How often other networks give the same class."""
    values = [100 * row["others agree"] for row in rows]
    errors = [100 * (row["standard error"] or 0.0) for row in rows]
    colours = [colour_of(row) for row in rows]
    place = range(len(rows))
    line = {"linewidth": 1}
    axes.barh(place, values, xerr=errors, color=colours, height=0.7, error_kw=line)
    names = [row["images"].replace(" (meant: own answer)", "") for row in rows]
    axes.set_yticks(place, names)
    for space in dict.fromkeys(row["space"] for row in rows if row["space"]):
        colour = BLUE if space == "standardised" else GREEN
        axes.plot([], [], "s", color=colour, label=f"{space} images")
    spacing: dict[str, Any] = {"handletextpad": 0.2, "columnspacing": 0.8}
    below: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (1.0, -0.05), "ncols": 2}
    axes.legend(fontsize=7.5, frameon=False, **below, **spacing)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.invert_yaxis()
    axes.axvline(100 / classes, color=INACTIVE, linewidth=1, linestyle=":")
    title = f"Same class by {others} other network{'s' * (others > 1)} (%)"
    axes.set_title(title, fontsize=10, color=INK, loc="right", fontweight="bold")
    label = "mean and standard error over classes; dotted: chance"
    axes.set_xlabel(label, fontsize=8, loc="right")
    axes.set_xlim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6, axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7.5, colors="#444444")


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    others = [oipjax.load(other) for other in config.others]
    others += [network(seed) for seed in config.seeds]
    if not others:
        raise ValueError(
            "expected at least one other network, got none; give --others NAME or --seeds 1"
        )
    inputs = (model.input_shape, model.mean, model.std)
    for other in others:
        if (other.input_shape, other.mean, other.std) != inputs:
            raise ValueError(
                f"{other.name} does not take the images of {model.name}: "
                "other shape or normalisation"
            )
    rows, pictures = judge(config, model, others)
    columns = [name for name in rows[0] if not name.startswith("by ")]
    names = [other.name for other in others]
    cells = [[row.get(name) for name in columns] for row in rows]
    show(f"images of {model.name}, judged by {', '.join(names)}", columns, cells)
    content = {"config": asdict(config), "others": names, "rows": rows}
    save(results, "class_patterns", content, plot(model, others, rows, pictures))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
