"""When during training do the maps and their OIPs settle?

Question: how alike are a map's activations and its OIP to those at the end of the training, from
    the initial weights
over the first steps to each epoch; and how does the score of its OIP change?
Expected: most of it happens in the first epoch. Maps of the first layer change least and settle
    first; the OIPs of the
third keep changing in details for longer than the accuracy does.
Cost: about 4 minutes of two cores, half of them for a training of 6 epochs.
Command: OIPJAX_DATA=folder python -m experiments.training_trajectory (or --data folder)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, save, show
from oipjax import keys, training
from oipjax.analysis import THRESHOLD, correlations, similarity
from oipjax.data import Dataset
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.networks import cnn
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
GREEN = "#009E73"
LAYERS = {"conv1": INACTIVE, "conv2": GREEN, "conv3": BLUE}


@dataclass(frozen=True)
class Config:
    """``stops``: steps within the first epoch after which the network is looked at, beside the end of each epoch.

    Two maps do the same if their activations correlate by ``same``; what OIPs have to reach is
    `optima.THRESHOLD`.
    """

    train: training.ClassifierTrainConfig = training.ClassifierTrainConfig(epochs=6)
    stops: tuple[int, ...] = (0, 10, 30, 100, 300)
    layer: str = "conv3"
    images: int = 1000
    draws: int = 2048
    steps: int = 80
    rows: int = 10
    same: float = 0.9
    seed: int = 0


SMOKE = Config(
    training.ClassifierTrainConfig(epochs=1, validation=66),
    (0, 3),
    "conv1",
    50,
    draws=64,
    steps=3,
    rows=3,
)


def trained(config: Config, digits: Dataset) -> list[tuple[str, Model]]:
    """One training, as `training.train_classifier` does it, and the network at each stop and at the end of each epoch."""
    plan, stream = config.train, keys.stream(jax.random.key(config.seed), keys.TRAIN)
    if not isinstance(plan.network, cnn.CNNConfig):
        raise ValueError(f"expected a training of a classifier, got one of {plan.network}")
    images, labels = digits.train
    count = len(images) - plan.held_out(len(images))
    batches = count // plan.batch
    steps = batches * plan.epochs
    pixels = images.astype(np.float32) / 255
    first = cnn.model(cnn.init(jax.random.fold_in(stream, 0), plan.network), plan.network, name="trajectory",
                      mean=(float(pixels.mean()),), std=(float(pixels.std()),), classes=digits.classes)  # fmt: skip
    x, y = jnp.asarray(first.to_input(images[:count])), jnp.asarray(labels[:count], jnp.int32)
    orders = [
        jax.random.permutation(jax.random.fold_in(stream, 1 + epoch), count)
        for epoch in range(plan.epochs)
    ]
    order = jnp.stack(
        [some[: batches * plan.batch].reshape(batches, plan.batch) for some in orders]
    ).reshape(steps, -1)
    tx = training.optimizer(plan, steps)

    @jax.jit
    def advance(
        carry: Any, x: jax.Array, y: jax.Array, order: jax.Array, start: int, stop: int
    ) -> Any:
        def step(number: jax.Array, carry: Any) -> Any:
            params, state = carry

            def loss(params: Any) -> jax.Array:
                logits = first.apply(params, x[order[number]])["logits"]
                return optax.softmax_cross_entropy_with_integer_labels(
                    logits, y[order[number]]
                ).mean()

            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(start, stop, step, carry)

    stops = [stop for stop in config.stops if stop < batches] + [
        batches * (1 + epoch) for epoch in range(plan.epochs)
    ]
    carry, before, found = (first.params, tx.init(first.params)), 0, []
    for stop in stops:
        carry = advance(carry, x, y, order, before, stop)
        name = f"{stop // batches} ep." if stop and not stop % batches else str(stop)
        found.append((name, replace(first, params=carry[0])))
        before = stop
        print(f"step {stop} of {steps}", end="\r", flush=True)
    return found


def patterns(config: Config, model: Model, seed: int) -> Any:
    """The atlas of one moment: one OIP for each map."""
    key = jax.random.key(seed)
    return oipjax.atlas(
        key,
        model,
        config.layer,
        draws=config.draws,
        keep=1,
        steps=config.steps,
        search=0,
        bounds="none",
    )


def settled(values: np.ndarray, least: float) -> np.ndarray:
    """For ``values [t, k]`` the first moment from which on they are at least ``least``, ``[k]``; NaN is below."""
    above = np.flip(np.logical_and.accumulate(np.flip(values >= least, 0), 0), 0)
    return np.where(above.any(0), above.argmax(0), len(values))


def accuracy(model: Model, digits: Dataset) -> float:
    """Share of the test images classified rightly."""
    confusion, _ = training.evaluate_classifier(model, model.params, digits.test)
    return float(np.trace(confusion) / confusion.sum())


def measure(
    config: Config, moments: Sequence[tuple[str, Model]], digits: Dataset
) -> dict[str, Any]:
    """Everything against the moment ``t``, and the OIPs ``[t, k, h, w, c]``; the last of them from other starts."""
    models, test = [model for _, model in moments], digits.test.images[: config.images]
    alike = {}
    for layer in LAYERS:
        square = correlations(models, layer, test)
        alike[layer] = np.stack([np.diagonal(square[t, :, -1]) for t in range(len(models))])
    atlases = [patterns(config, model, config.seed) for model in models]
    atlases.append(patterns(config, models[-1], config.seed + 1))
    images = np.stack([atlas.images[:, 0] for atlas in atlases])
    found = np.stack([atlas.status == FOUND for atlas in atlases])
    scores = np.stack([atlas.scores[:, 0] for atlas in atlases])
    seen = np.flatnonzero(found[-2])
    ncc = np.stack([similarity(images[:, k])[0][:, -2] for k in seen], 1)
    others = similarity(images[-2, seen])[0]
    return {
        "moments": [name for name, _ in moments],
        "accuracy": [accuracy(model, digits) for model in models],
        "alike": alike,
        "maps": seen,
        "images": images[:, seen],
        "found": found,
        "scores": scores[:, seen] / scores[-2, seen],
        "oips": np.where(found[:, seen], ncc, np.nan),
        "others": float(np.median(others[np.triu_indices(len(seen), 1)])),
    }  # fmt: skip


def plot(config: Config, facts: dict[str, Any]) -> Figure:
    """A strip for each of some maps, and what all maps do."""
    figure = Figure(figsize=(15.4, 8.8), facecolor="white")
    moments, names = len(facts["moments"]), [*facts["moments"], "again"]
    title = f"How OIPs come about in training \N{MIDDLE DOT} {config.layer}"
    figure.text(0.04, 0.965, title, fontsize=15, fontweight="bold", color=INK)
    note = "Columns: steps, then epochs; again: the end, from other starts. Below: similarity to the end; early first."
    figure.text(0.04, 0.941, note, fontsize=9, color=FAINT)
    order = np.argsort(-np.nan_to_num(facts["oips"][:moments]).mean(0), kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, config.rows).round().astype(int))]
    grid = figure.add_gridspec(
        len(order), len(names), left=0.04, right=0.655, top=0.9, bottom=0.03, wspace=0.08
    )
    for row, number in enumerate(order):
        for column, name in enumerate(names):
            axes = figure.add_subplot(grid[row, column])
            there, alike = np.isfinite(facts["oips"][column, number]), facts["oips"][column, number]
            if there:
                shown = contrast(facts["images"][column, number], 2.0)
                axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            text, ink = (f"{alike:.2f}", INK) if there else ("silent", INACTIVE)
            axes.set_xlabel(text, fontsize=7, color=ink, labelpad=1.5)
            if not row:
                axes.set_title(name, fontsize=8.5, color=INK, pad=4)
            if not column:
                axes.set_ylabel(
                    str(facts["maps"][number]),
                    fontsize=9,
                    rotation=0,
                    ha="right",
                    va="center",
                    color=INK,
                )
    right = figure.add_gridspec(4, 1, left=0.715, right=0.985, top=0.9, bottom=0.045, hspace=0.42)
    panels = [figure.add_subplot(right[i]) for i in range(4)]
    for layer, colour in LAYERS.items():
        _band(panels[0], facts["alike"][layer], colour, layer)
    _words(panels[0], "Activations: correlation with the end", facts["moments"])
    panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    _band(panels[1], facts["oips"][:moments], BLUE, "the map at the end")
    again = float(np.nanmedian(facts["oips"][-1]))
    panels[1].axhline(
        again, color=GREEN, linewidth=1.2, linestyle="--", label="the end, from other starts"
    )
    panels[1].axhline(
        facts["others"], color=INACTIVE, linewidth=1.2, linestyle=":", label="other maps at the end"
    )
    _words(panels[1], "OIPs: similarity to", facts["moments"])
    panels[1].legend(fontsize=8, frameon=False, loc="upper left")
    _band(panels[2], facts["scores"][:moments], BLUE, "")
    _words(panels[2], "Score of the OIP, relative to the end", facts["moments"])
    panels[3].semilogy(100 * (1 - np.array(facts["accuracy"])), "o-", color=INK, markersize=3.5)
    panels[3].set_yticks(
        [0.5, 1, 2, 5, 10, 50, 90], ["0.5", "1", "2", "5", "10", "50", "90"], minor=False
    )
    panels[3].minorticks_off()
    _words(panels[3], "Test error (%)", facts["moments"])
    return figure


def _band(axes: Axes, values: np.ndarray, colour: str, label: str) -> None:
    """The median over maps, and the quartiles."""
    low, middle, high = np.nanpercentile(values, (25, 50, 75), axis=1)
    axes.plot(middle, "o-", color=colour, markersize=3.5, label=label)
    axes.fill_between(np.arange(len(middle)), low, high, color=colour, alpha=0.18, linewidth=0)


def _words(axes: Axes, title: str, moments: Sequence[str]) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xticks(range(len(moments)), moments)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#444444")


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> dict[str, Any]:
    """Run, print, write."""
    digits = data.load() if digits is None else digits
    facts = measure(config, trained(config, digits), digits)
    print()
    moments = facts["moments"]
    rows = [
        [name, facts["accuracy"][t], *(float(np.nanmedian(facts["alike"][layer][t])) for layer in LAYERS),
         float(np.nanmedian(facts["oips"][t])), float(np.median(facts["scores"][t])), int(facts["found"][t].sum())]
        for t, name in enumerate(moments)
    ]  # fmt: skip
    columns = [
        "after",
        "test accuracy",
        *(f"{layer}: correlation" for layer in LAYERS),
        "OIP",
        "score",
        "found",
    ]
    show("medians over maps, relative to the end", columns, rows)
    when = {}
    for name, values, least in (
        *((layer, facts["alike"][layer], config.same) for layer in LAYERS),
        ("OIPs", facts["oips"][: len(moments)], THRESHOLD),
    ):
        live = np.isfinite(values[-1])
        when[name] = np.bincount(settled(values[:, live], least), minlength=len(moments))[
            : len(moments)
        ].tolist()
    show("maps that settle", ["from", *moments], [[name, *counts] for name, counts in when.items()])
    content = {
        "config": asdict(config), "columns": columns, "rows": rows, "settled": when,
        "OIP similarity, end from other starts": float(np.nanmedian(facts["oips"][-1])),
        "OIP similarity, other maps": facts["others"],
    }  # fmt: skip
    save(results, "training_trajectory", content, plot(config, facts))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
