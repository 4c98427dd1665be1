"""When during training do the maps and their OIPs settle?

Question: how alike are a map's activations and its OIP to those at the end of the training, from
the initial weights over the first steps to each epoch? How does the score of its OIP change?
Expected: most of it happens in the first epoch. Maps of the first layer change least and settle
first. The OIPs of the third keep changing in details for longer than the accuracy does.
Cost: about 4 minutes of two cores, half of them for a training of 6 epochs.
Command: OIPJAX_DATA=folder python -m experiments.training_trajectory (or --data folder)
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import oipjax
from experiments.common import command, save, show
from experiments.figures.training_trajectory import LAYERS, Trajectory, plot
from oipjax import keys, training
from oipjax.analysis import THRESHOLD, correlations, similarity
from oipjax.data import Dataset
from oipjax.data import mnist as data
from oipjax.model import Model
from oipjax.networks import cnn
from oipjax.study import FOUND, Atlas
from oipjax.training import ClassifierTrainConfig

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "after",
    "test accuracy",
    *(f"{layer}: correlation" for layer in LAYERS),
    "OIP",
    "score",
    "found",
)


@dataclass(frozen=True)
class Config:
    """The training, and the moments at which the network is looked at.

    OIPs count as the same from the similarity `oipjax.analysis.THRESHOLD` on.

    Attributes:
        train: how to train.
        stops: steps within the first epoch, beside the end of each epoch.
        layer: whose OIPs are made.
        images: test images that activations are compared on.
        draws: random starts of each survey.
        steps: of each ascent.
        rows: maps in the figure.
        same: the correlation of activations from which on two maps count as the same.
        seed: of the training and of the starts.
    """

    train: ClassifierTrainConfig = ClassifierTrainConfig(epochs=6)
    stops: tuple[int, ...] = (0, 10, 30, 100, 300)
    layer: str = "conv3"
    images: int = 1000
    draws: int = 2048
    steps: int = 80
    rows: int = 10
    same: float = 0.9
    seed: int = 0


SMOKE = Config(
    train=ClassifierTrainConfig(epochs=1, validation=66),
    stops=(0, 3),
    layer="conv1",
    images=50,
    draws=64,
    steps=3,
    rows=3,
)


class Moment(NamedTuple):
    """The network at a moment of the training.

    Attributes:
        name: of the moment.
        model: the network.
    """

    name: str
    model: Model


def initial(config: Config, key: jax.Array, digits: Dataset) -> Model:
    """The network with its initial weights; the key is consumed."""
    architecture = config.train.network
    if not isinstance(architecture, cnn.CNNConfig):
        raise ValueError(f"expected a training of a classifier, got one of {architecture}")
    pixels = digits.train.images.astype(np.float32) / 255
    return cnn.model(
        cnn.init(key, architecture),
        architecture,
        name="trajectory",
        mean=(float(pixels.mean()),),
        std=(float(pixels.std()),),
        classes=digits.classes,
    )


def batches_of(config: Config, stream: jax.Array, count: int) -> jax.Array:
    """The images of each step of the training, int ``[steps, batch]``."""
    batch = config.train.batch
    used = count - count % batch
    epochs = []
    for epoch in range(config.train.epochs):
        key = jax.random.fold_in(stream, 1 + epoch)
        order = jax.random.permutation(key, count)
        epochs.append(order[:used].reshape(-1, batch))
    return jnp.concatenate(epochs)


def trainer(model: Model, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """A compiled function that makes the steps from one number to another."""

    def advance(
        carry: Any, x: jax.Array, y: jax.Array, order: jax.Array, start: int, stop: int
    ) -> Any:
        def step(number: jax.Array, carry: Any) -> Any:
            params, state = carry
            chosen = order[number]

            def loss(params: Any) -> jax.Array:
                logits = model.apply(params, x[chosen])["logits"]
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, y[chosen])
                return losses.mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(start, stop, step, carry)

    return jax.jit(advance)


def trained(config: Config, digits: Dataset) -> list[Moment]:
    """One training, as by `oipjax.training.train_classifier`, at each stop and after each epoch."""
    stream = keys.stream(jax.random.key(config.seed), keys.TRAIN)
    model = initial(config, jax.random.fold_in(stream, 0), digits)
    images, labels = digits.train
    count = len(images) - config.train.held_out(len(digits.train.images))
    x = jnp.asarray(model.to_input(images[:count]))
    y = jnp.asarray(labels[:count], jnp.int32)
    order = batches_of(config, stream, count)
    steps = len(order)
    batches = steps // config.train.epochs
    stops = [stop for stop in config.stops if stop < batches]
    stops.extend(range(batches, steps + 1, batches))
    optimizer = training.optimizer(config.train, steps)
    advance = trainer(model, optimizer)
    carry = (model.params, optimizer.init(model.params))
    before = 0
    moments = []
    for stop in stops:
        carry = advance(carry, x, y, order, before, stop)
        is_epoch = stop > 0 and stop % batches == 0
        name = f"{stop // batches} ep." if is_epoch else str(stop)
        moments.append(Moment(name, replace(model, params=carry[0])))
        before = stop
        print(f"step {stop} of {steps}", end="\r", flush=True)
    return moments


def patterns(config: Config, model: Model, seed: int) -> Atlas:
    """The atlas of one moment: one OIP for each map."""
    return oipjax.atlas(
        jax.random.key(seed),
        model,
        config.layer,
        draws=config.draws,
        keep=1,
        steps=config.steps,
        search=0,
        bounds="none",
    )


def settled(values: np.ndarray, least: float) -> np.ndarray:
    """From which moment on values are at least so large.

    Args:
        values: ``[t, k]``; NaN is below.
        least: the value to reach.

    Returns:
        The first moment of each map, int ``[k]``; ``t`` where there is none.
    """
    backwards = np.flip(values >= least, 0)
    above = np.flip(np.logical_and.accumulate(backwards, 0), 0)
    return np.where(above.any(0), above.argmax(0), len(values))


def accuracy(model: Model, digits: Dataset) -> float:
    """Share of the test images classified rightly."""
    confusion, _ = training.evaluate_classifier(model, model.params, digits.test)
    return float(np.trace(confusion) / confusion.sum())


def measure(config: Config, moments: Sequence[Moment], digits: Dataset) -> Trajectory:
    """Activations and OIPs at each moment beside those at the end."""
    models = [moment.model for moment in moments]
    test = digits.test.images[: config.images]
    alike = {}
    for layer in LAYERS:
        square = correlations(models, layer, test)
        to_end = [np.diagonal(square[t, :, -1]) for t in range(len(models))]
        alike[layer] = np.stack(to_end)
    atlases = [patterns(config, model, config.seed) for model in models]
    atlases.append(patterns(config, models[-1], config.seed + 1))
    images = np.stack([atlas.images[:, 0] for atlas in atlases])
    found = np.stack([atlas.status == FOUND for atlas in atlases])
    scores = np.stack([atlas.scores[:, 0] for atlas in atlases])
    # The last row holds the same network's OIPs from other starts, so the end is the last but one.
    end = len(models) - 1
    maps = np.flatnonzero(found[end])
    to_end = [similarity(images[:, number])[0][:, end] for number in maps]
    between_maps, _ = similarity(images[end, maps])
    pairs = between_maps[np.triu_indices(len(maps), 1)]
    return Trajectory(
        moments=[moment.name for moment in moments],
        accuracy=[accuracy(model, digits) for model in models],
        alike=alike,
        maps=maps,
        images=images[:, maps],
        found=found,
        scores=scores[:, maps] / scores[end, maps],
        oips=np.where(found[:, maps], np.stack(to_end, 1), np.nan),
        others=float(np.median(pairs)),
    )


def table(trajectory: Trajectory) -> list[list[Any]]:
    """A row for each moment, in the order of `COLUMNS`."""
    rows = []
    for t, name in enumerate(trajectory.moments):
        correlation = [float(np.nanmedian(values[t])) for values in trajectory.alike.values()]
        oips = float(np.nanmedian(trajectory.oips[t]))
        scores = float(np.median(trajectory.scores[t]))
        found = int(trajectory.found[t].sum())
        rows.append([name, trajectory.accuracy[t], *correlation, oips, scores, found])
    return rows


def when_settled(config: Config, trajectory: Trajectory) -> dict[str, list[int]]:
    """How many maps, and OIPs, settle at each moment ``[t]``."""
    moments = len(trajectory.moments)
    numbers = {}
    for layer, values in trajectory.alike.items():
        numbers[layer] = settled(live(values), config.same)
    numbers["OIPs"] = settled(live(trajectory.oips[:moments]), THRESHOLD)
    when = {}
    for name, first in numbers.items():
        counts = np.bincount(first, minlength=moments)
        when[name] = counts[:moments].tolist()
    return when


def live(values: np.ndarray) -> np.ndarray:
    """The columns of ``[t, k]`` that have a value at the end."""
    return values[:, np.isfinite(values[-1])]


def main(
    config: Config = Config(), digits: Dataset | None = None, results: Path = RESULTS
) -> dict[str, Any]:
    """Run, print, write."""
    if digits is None:
        digits = data.load()
    trajectory = measure(config, trained(config, digits), digits)
    print()
    rows = table(trajectory)
    show("medians over maps, relative to the end", COLUMNS, rows)
    when = when_settled(config, trajectory)
    counts = [[name, *numbers] for name, numbers in when.items()]
    show("maps that settle", ["from", *trajectory.moments], counts)
    content = {
        "config": asdict(config),
        "columns": COLUMNS,
        "rows": rows,
        "settled": when,
        "OIP similarity, end from other starts": trajectory.again,
        "OIP similarity, other maps": trajectory.others,
    }
    figure = plot(config.layer, config.rows, trajectory)
    save(results, "training_trajectory", content, figure)
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS, digits=True)
