"""What does the network think a 4 is, and does another network agree?

Question: which images raise a class most: its logit, its log-probability, a sum of the maps that
    answer it, the mean
pattern of its digits in the last convolution or in the dense layer? How sure is the network itself
of the class of such an image, how often do other networks, trained alike from other seeds, give it
the same class, and does it resemble the mean digit?
Expected: the network is certain of every such image. Others agree more often than by chance (10 %)
    and far less often
than on digits (99 %); smooth images and those inside the box of valid pixels carry over better.
None looks like a digit at first sight, but most are more like the mean digit of their class than
like those of the nine others. Cost: about 2 minutes of two cores.
Command: python -m experiments.class_patterns (further networks: --others folder folder; --seeds 1 2
    trains them first)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, network, save, show
from oipjax import Class, Direction, Map, TotalVariation
from oipjax.analysis import similarity
from oipjax.data import mnist as data
from oipjax.objectives import Objective
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.search import make_starts

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class LogProbability(Map):
    """The logarithm of a class's probability: unlike the logit it grows by lowering the other classes too."""

    layer: str = "logits"

    def __call__(self, activations, image, target):
        """See `Objective`."""
        return jnp.take(jax.nn.log_softmax(activations[self.layer]), target, axis=0)


@dataclass(frozen=True)
class Config:
    """``others`` are names or folders of checkpoints; ``seeds`` networks that are trained unless they are there.

    ``smooth`` is the weight of the total variation beside a logit, or beside a direction whose
    digits score like their logit: with 30 the images are about as smooth as digits. ``smooth_log``
    is the weight beside a log-probability, of which there is no more to gain than 0. ``maps`` is
    the number of maps in a sum.
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
    """What is climbed: an objective, a target for each class, and the weight of the total variation."""

    name: str
    objective: Objective
    targets: np.ndarray
    smooth: float

    def climb(self, config: Config, model: oipjax.Model, space: str, smooth: bool) -> np.ndarray:
        """Images ``[class, start, h, w, c]``, all classes from the same random starts."""
        goal, targets = self.objective, np.repeat(self.targets, config.starts, axis=0)
        if smooth:
            goal = goal - self.smooth * TotalVariation()
        run = oipjax.ascend(
            jax.random.key(config.seed), model, goal, (targets,) if smooth else targets,
            np.tile(np.arange(config.starts), len(self.targets)), space=oipjax.space_for(model, space),
            steps=config.steps,
        )  # fmt: skip
        return run.images.reshape(len(self.targets), config.starts, *model.input_shape)


def goals(
    config: Config, model: oipjax.Model, digits: np.ndarray, labels: np.ndarray
) -> list[Goal]:
    """The objectives; directions are made of what the layers answer to digits ``[n, h, w, c]``."""
    seen = answers(model, digits)
    classes = np.arange(len(model.classes))
    logits = np.array([seen["logits"][labels == c, c].mean() for c in classes])

    def direction(name: str, layer: str, most: int | None = None) -> Goal:
        means = seen[layer].mean(tuple(range(1, seen[layer].ndim - 1)))
        means = np.stack([means[labels == c].mean(0) for c in classes])
        toward = means - means.mean(0)
        if most is not None:
            toward = (toward.argsort(1).argsort(1) >= toward.shape[1] - most).astype(np.float32)
        # Scaled so that one weight of the total variation suits all.
        toward *= (logits / (toward * means).sum(1))[:, None]
        return Goal(name, Direction(layer), toward, config.smooth)

    known = (
        Goal("logit", Class(), classes, config.smooth),
        Goal("log-probability", LogProbability(), classes, config.smooth_log),
        direction("sum of maps", model.default_layer, config.maps),
        direction("maps' mean pattern", model.default_layer),
        direction("dense mean pattern", _dense(model)),
    )
    unknown = set(config.goals) - {goal.name for goal in known}
    if unknown or not config.goals:
        raise ValueError(
            f"unknown goals {sorted(unknown)}; there are {', '.join(goal.name for goal in known)}"
        )
    return [goal for goal in known if goal.name in config.goals]


def _dense(model: oipjax.Model) -> str:
    """The last hidden dense layer."""
    named = [name for name in model.nonlinearities if len(model.shapes[name]) == 1]
    if not named or len(model.classes) != model.shapes["logits"][-1]:
        raise ValueError(
            f"{model.name}: expected a classifier with a hidden dense layer; it has {model.layers}"
        )
    return named[-1]


def probabilities(model: oipjax.Model, images: np.ndarray) -> np.ndarray:
    """Of the classes, ``[n, classes]``, of network inputs ``[n, h, w, c]``; all networks here take the same ones."""
    return np.asarray(jax.nn.softmax(jnp.asarray(answers(model, images)["logits"])))


def answers(model: oipjax.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Of all layers to network inputs ``[n, h, w, c]``."""
    return {
        name: np.asarray(value)
        for name, value in jax.jit(model.apply)(model.params, images).items()
    }


def error(values: np.ndarray) -> float | None:
    """Standard error of the mean; None of a single value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def verdict(
    model: oipjax.Model, others: Sequence[oipjax.Model], images: np.ndarray, meant: np.ndarray
) -> dict:
    """What the networks say of images ``[n, h, w, c]`` that are meant to show the classes ``meant [n]``.

    The standard error is over the classes: images of one class are alike, and networks judge the
    same ones.
    """
    own, place = probabilities(model, images), np.arange(len(meant))
    theirs = np.stack([probabilities(other, images) for other in others])
    agree = theirs.argmax(2) == meant
    classes = [int(c) for c in np.unique(meant)]
    by_class = np.array([agree[:, meant == c].mean() for c in classes])
    return {
        "own top-1": float(np.mean(own.argmax(1) == meant)),
        "own confidence": float(own[place, meant].mean()),
        "others agree": float(by_class.mean()),
        "standard error": error(by_class),
        "others' confidence": float(theirs[:, place, meant].mean()),
        "by network": agree.mean(1).tolist(),
        "by class": dict(zip(classes, by_class.tolist(), strict=True)),
        "by class, standard error over images": {
            c: error(agree[:, meant == c].mean(0)) for c in classes
        },
    }


def likeness(images: np.ndarray, means: np.ndarray, meant: np.ndarray) -> dict[str, float]:
    """Of images ``[n, h, w, c]`` with the mean digits ``[classes, h, w, c]`` and each other, shifts taken out."""
    ncc = similarity(np.concatenate([means, images]))[0][len(means) :]
    mutual, ncc = ncc[:, len(means) :], ncc[:, : len(means)]
    pairs = np.triu(meant[:, None] == meant, 1)
    return {
        "similarity to its mean digit": float(ncc[np.arange(len(meant)), meant].mean()),
        "most like that one": float(np.mean(ncc.argmax(1) == meant)),
        "similarity of two of a class": float(np.median(mutual[pairs])),
    }


def judge(
    config: Config, model: oipjax.Model, others: Sequence[oipjax.Model]
) -> tuple[list[dict], list[tuple]]:
    """Rows of the table, and rows of pictures ``(name, images [class, h, w, c])`` for the figure."""
    sample = data.sample()
    digits, labels = model.to_input(sample.images), sample.labels.astype(int)
    classes = np.arange(len(model.classes))
    means = np.stack([digits[labels == c].mean(0) for c in classes])
    sure = answers(model, digits)["logits"]
    best = digits[[np.flatnonzero(labels == c)[sure[labels == c, c].argmax()] for c in classes]]
    few = slice(20 * len(classes))
    rows: list[dict[str, Any]] = [
        {"images": "digits", "space": ""} | verdict(model, others, digits, labels)
        | likeness(digits[few], means, labels[few]),
        {"images": "mean digits", "space": ""} | verdict(model, others, means, classes),
    ]  # fmt: skip
    pictures = [("mean digit", "", means), ("digit of the highest logit", "", best)]
    meant = np.repeat(classes, config.starts)
    for space in config.spaces:
        z = oipjax.space_for(model, space)
        noise = make_starts(jax.random.key(config.seed), z, np.arange(len(meant)))
        said = verdict(model, others, noise, probabilities(model, noise).argmax(1))
        rows.append({"images": "random starts (meant: own answer)", "space": space} | said)
        for goal in goals(config, model, digits, labels):
            for smooth in (False, True):
                images = goal.climb(config, model, space, smooth)
                name, flat = goal.name + ", smooth" * smooth, images.reshape(-1, *model.input_shape)
                found = verdict(model, others, flat, meant) | likeness(flat, means, meant)
                rows.append({"images": name, "space": space} | found)
                pictures.append((name, space, images[:, 0]))
    return rows, pictures


def plot(
    model: oipjax.Model,
    others: Sequence[oipjax.Model],
    rows: list[dict[str, Any]],
    pictures: list[tuple],
) -> Figure:
    """Images of every class, what another network calls them, and how often others agree."""
    ends = {(False, pictures[2][1]), (True, pictures[-1][1])}
    shown = [row for row in pictures if not row[1] or ("smooth" in row[0], row[1]) in ends]
    figure = Figure(figsize=(13.2, 0.6 + 0.78 * len(shown)), facecolor="white")
    title = f"{model.name} \N{MIDDLE DOT} what does the network think a digit is?"
    high = figure.get_figheight()
    figure.text(
        0.02, 1 - 0.22 / high, title, fontsize=15, fontweight="bold", color=INK, va="center"
    )
    note = f"Below each image: what {others[0].name} calls it and how sure it is; orange where it is another class."
    figure.text(0.02, 1 - 0.5 / high, note, fontsize=9, color=FAINT, va="center")
    grid = figure.add_gridspec(len(shown), len(model.classes), left=0.15, right=0.65, top=1 - 0.68 / high,
                               bottom=0.25 / high, hspace=0.28, wspace=0.05)  # fmt: skip
    for place, (name, space, images) in enumerate(shown):
        said_by = probabilities(others[0], images)
        for c, image in enumerate(images):
            axes = figure.add_subplot(grid[place, c])
            axes.imshow(contrast(image, 2.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            said = int(said_by[c].argmax())
            words = f"{model.classes[said]}: {100 * said_by[c, said]:.0f} %"
            axes.set_xlabel(words, fontsize=7, labelpad=1, color=INK if said == c else INACTIVE)
            if not c:
                axes.text(-0.15, 0.5, f"{name}\n{space}".strip(), transform=axes.transAxes, fontsize=8, ha="right",
                          va="center", color=INK)  # fmt: skip
    panel = figure.add_axes((0.8, 0.8 / high, 0.185, 1 - 1.6 / high))
    values = [100 * row["others agree"] for row in rows]
    errors = [100 * (row["standard error"] or 0.0) for row in rows]
    colours = [FAINT if not row["space"] or "random" in row["images"] else BLUE if row["space"] == "standardised"
               else "#009E73" for row in rows]  # fmt: skip
    panel.barh(
        range(len(rows)), values, xerr=errors, color=colours, height=0.7, error_kw={"linewidth": 1}
    )
    panel.set_yticks(
        range(len(rows)), [row["images"].replace(" (meant: own answer)", "") for row in rows]
    )
    spaces = list(dict.fromkeys(row["space"] for row in rows if row["space"]))
    for space in spaces:
        panel.plot(
            [],
            [],
            "s",
            color=BLUE if space == "standardised" else "#009E73",
            label=f"{space} images",
        )
    panel.legend(fontsize=7.5, loc="upper right", bbox_to_anchor=(1.0, -0.05), ncols=2, frameon=False,
                 handletextpad=0.2, columnspacing=0.8)  # fmt: skip
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.invert_yaxis()
    panel.axvline(100 / len(model.classes), color=INACTIVE, linewidth=1, linestyle=":")
    panel.set_title(f"Same class by {len(others)} other network{'s' * (len(others) > 1)} (%)", fontsize=10, color=INK,
                    loc="right", fontweight="bold")  # fmt: skip
    panel.set_xlabel(
        "mean and standard error over classes; dotted: chance", fontsize=8, loc="right"
    )
    panel.set_xlim(0, 100)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="#e4e4e4", linewidth=0.6, axis="x")
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=7.5, colors="#444444")
    return figure


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    others = [oipjax.load(other) for other in config.others] + [
        network(seed) for seed in config.seeds
    ]
    if not others:
        raise ValueError(
            "expected at least one other network, got none; give --others NAME or --seeds 1"
        )
    for other in others:
        if (other.input_shape, other.mean, other.std) != (model.input_shape, model.mean, model.std):
            raise ValueError(
                f"{other.name} does not take the images of {model.name}: other shape or normalisation"
            )
    rows, pictures = judge(config, model, others)
    columns = [name for name in rows[0] if not name.startswith("by ")]
    show(f"images of {model.name}, judged by {', '.join(other.name for other in others)}", columns,
         [[row.get(name) for name in columns] for row in rows])  # fmt: skip
    content = {"config": asdict(config), "others": [other.name for other in others], "rows": rows}
    save(results, "class_patterns", content, plot(model, others, rows, pictures))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
