"""The training loop of any network.

An epoch is one compiled scan, the best epoch is kept, and an interruption changes no bit.
The epoch to keep is chosen by images held out of the *training* set, so the results on the test
images are measured, not fitted. `fit` trains any network whose configuration names a `Task`;
`oipjax.training.classifier` and `oipjax.training.autoencoder` are built on it.

On a CPU each device takes a part of every batch (`parts_of`). A process therefore trains faster if
it begins with ``jax.config.update("jax_num_cpu_devices", 2)``, as the command line does on two
cores (``experiments/README.md``). 3x3 convolutions are computed under
`oipjax.ops.allow_extra_rounding` there; held-out images are judged by the network as it is
elsewhere.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from oipjax import keys, ops
from oipjax.data import Dataset, Split
from oipjax.images import normalise
from oipjax.model import Model, Params
from oipjax.pytrees import fingerprint
from oipjax.runtime import OPTIONS
from oipjax.storage import StateFile, surroundings
from oipjax.training.config import TrainConfig, optimizer, schedule

EVALUATION_BATCH = 500
LEAST_PART = 16
"""The fewest images of a batch that a device takes."""

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel's pixels in [0, 1]."""


class Fitted(NamedTuple):
    """The result of `fit`.

    Attributes:
        params: parameters of the best epoch.
        best_epoch: its number, from 1.
        history: one line for each epoch.
    """

    params: Params
    best_epoch: int
    history: tuple[Any, ...]


class State(NamedTuple):
    """What an epoch changes: the parameters and the state of the optimiser."""

    params: Params
    optimizer: optax.OptState


class Best(NamedTuple):
    """The best epoch so far: its measure on the held-out images, its number and its parameters."""

    measure: float | None
    epoch: int
    params: Params


class Callbacks(NamedTuple):
    """The functions that are called during a training, and the file of its state.

    Attributes:
        on_epoch: called after every epoch with its line of the history.
        on_params: called after every epoch with that line and a copy of the parameters.
        state: the file that is read at the beginning and written after each epoch.
    """

    on_epoch: Callable[[Any], None] | None = None
    on_params: Callable[[Any, Params], None] | None = None
    state: StateFile | None = None


def normalisation(images: np.ndarray) -> Normalisation:
    """The normalisation of images ``uint8 [n, h, w, c]``, to four digits.

    Raises:
        ValueError: all pixels of a channel are equal.
    """
    channels = images.shape[3]
    total = np.zeros(channels)
    squares = np.zeros(channels)
    for first in range(0, len(images), EVALUATION_BATCH):
        pixels = images[first : first + EVALUATION_BATCH] / 255
        total = total + pixels.sum((0, 1, 2))
        squares = squares + np.square(pixels).sum((0, 1, 2))
    count = images.size / channels
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if std.min() < 1e-4:
        raise ValueError(
            "all pixels of a channel are equal: there is nothing to learn from such images"
        )
    return _to_four_digits(mean), _to_four_digits(std)


def _to_four_digits(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.4f}") for value in values)


def split_off(config: TrainConfig, data: Dataset) -> tuple[Split, Split]:
    """The images to train with, and the held-out ones.

    Raises:
        ValueError: the images do not fit the network, or fewer than a batch are left.
    """
    images, labels = data.train
    if images.shape[1:] != config.network.input_shape:
        raise ValueError(
            f"the network takes {config.network.input_shape}, {data.name} has {images.shape[1:]}"
        )
    held_out = config.held_out(len(images))
    count = len(images) - held_out
    if count < config.batch:
        raise ValueError(
            f"{len(images)} images less {held_out} held out leave {max(count, 0)}, "
            f"fewer than a batch of {config.batch}"
        )
    return Split(images[:count], labels[:count]), Split(images[count:], labels[count:])


def plan(key: Array, config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """All that decides the bits of a training, as plain JSON."""
    held_out = config.held_out(len(data.train.images))
    images = {"images": data.train.images, "labels": data.train.labels}
    return {
        "config": dataclasses.replace(config, validation=held_out).describe(),
        "convolutions": "large tiles" if jax.default_backend() == "cpu" else "the library's",
        "key": {
            "implementation": str(jax.random.key_impl(key)),
            "data": np.asarray(jax.random.key_data(key)).tolist(),
        },
        "data": {"name": data.name, "sha256": fingerprint(images)},
        **surroundings(),
    }


def state_file(
    file: Path | None, key: Array, config: TrainConfig, data: Dataset, *, overwrite: bool
) -> StateFile | None:
    """The file of a training's state; None if it has none."""
    if file is None:
        return None
    return StateFile(file, plan(key, config, data), overwrite=overwrite)


def fit(
    key: Array,
    config: TrainConfig,
    model: Model,
    data: Split,
    *,
    held: Callable[[Params], tuple[float, float]] | None,
    callbacks: Callbacks = Callbacks(),
) -> Fitted:
    """Train any network, from the parameters that it has.

    Args:
        key: the root key; its `keys.TRAIN` stream is used.
        config: the options; ``config.task`` says how the network is judged.
        model: the network; its ``apply`` gives the layer that the task judges. It should not be
            jitted, or held-out images are judged with the rounding of the training.
        data: the images to train with.
        held: measure and loss of some parameters on held-out images, called after each epoch. None:
            nothing is held out, and the last epoch is kept.
        callbacks: the functions that are called, and the file of the state.

    Raises:
        ValueError: a loss is not finite; the state is that of another training.
    """
    task = config.task
    stream = keys.stream(key, keys.TRAIN)
    batches = len(data.images) // config.batch
    steps = batches * config.epochs
    rate = schedule(config, steps)
    state, best, history = _begin(config, steps, model.params, callbacks.state)
    # Each device has all images: a copy of the data set.
    on_device = _everywhere(parts_of(config), (data.images, data.labels))
    normalisation = (model.mean, model.std)
    for number in range(len(history) + 1, config.epochs + 1):
        epoch_key = jax.random.fold_in(stream, number)
        state, *means = run_epoch(
            config, steps, model.apply, normalisation, state, epoch_key, *on_device
        )
        loss, measure = (float(mean) for mean in means)
        if not np.isfinite(loss):
            raise ValueError(
                f"the loss is no longer finite in epoch {number}: try a smaller --learning-rate"
            )
        params = jax.tree.map(np.asarray, state.params)
        held_measure, held_loss = (np.nan, np.nan) if held is None else held(params)
        learning_rate = np.asarray(rate(number * batches)).item()
        line = task.line(
            number, loss, measure, float(held_measure), float(held_loss), learning_rate
        )
        history.append(line)
        if held is None or _is_better(held_measure, best.measure, task.best):
            best = Best(measure=float(held_measure), epoch=number, params=params)
        if callbacks.state is not None:
            facts = {"best": (best.measure, best.epoch), "history": history}
            callbacks.state.write((state, best.params), facts)
        if callbacks.on_epoch is not None:
            callbacks.on_epoch(line)
        if callbacks.on_params is not None:
            callbacks.on_params(line, params)
    return Fitted(jax.tree.map(jnp.asarray, best.params), best.epoch, tuple(history))


def _begin(
    config: TrainConfig, steps: int, params: Params, file: StateFile | None
) -> tuple[State, Best, list[Any]]:
    """The state, the best epoch and the history to begin with: those of the file, if it has any."""
    # The parameters are copied, because an epoch takes over the buffers of its state.
    own = jax.tree.map(jnp.array, params)
    state = State(params=own, optimizer=optimizer(config, steps).init(own))
    kept = None if file is None else file.read((state, params))
    if kept is None:
        return state, Best(measure=None, epoch=0, params=params), []
    (state, best_params), facts = kept
    measure, epoch = facts["best"]
    history = [config.task.line(*line) for line in facts["history"]]
    best = Best(measure=measure, epoch=epoch, params=best_params)
    return jax.tree.map(jnp.asarray, state), best, history


def _is_better(measure: float, best: float | None, choose: Callable[..., Any]) -> bool:
    if best is None:
        return True
    return measure != best and choose(measure, best) == measure


def pixels_of(images: Array) -> Array:
    """Pixels in [0, 1] of ``uint8`` images."""
    return images.astype(jnp.float32) / 255


def parts_of(config: TrainConfig) -> int:
    """In how many parts a batch is computed at the same time.

    On a CPU there is one part for each device, as long as no part is too small. A batch's gradient
    is the mean of its parts' gradients, so the number of devices is among what decides the bits.
    The number of cores is not: each of several parts stays on one core.
    """
    most = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    for parts in range(most, 1, -1):
        is_whole = config.batch % parts == 0
        if is_whole and config.batch // parts >= LEAST_PART:
            return parts
    return 1


@functools.cache
def _mesh(parts: int) -> Mesh:
    devices = jax.local_devices()[:parts]
    return jax.make_mesh((parts,), ("part",), (AxisType.Auto,), devices=devices)


def _everywhere(parts: int, tree: Any) -> Any:
    """Arrays on the devices of all parts."""
    sharding = NamedSharding(_mesh(parts), PartitionSpec()) if parts > 1 else None
    return jax.device_put(tree, sharding)


def run_epoch(
    config: TrainConfig,
    steps: int,
    apply: Callable[..., Any],
    normalisation: Normalisation,
    state: State,
    key: Array,
    images: Array,
    labels: Array,
) -> tuple[State, Array, Array]:
    """The state after an epoch, and the epoch's mean loss and measure.

    Args:
        config: the options.
        steps: of all epochs together, for the schedule.
        apply: of the network.
        normalisation: mean and standard deviation of the pixels.
        state: before the epoch; its buffers are taken over.
        key: decides the order of the images and the corruption.
        images: ``uint8 [n, h, w, c]``.
        labels: ``[n]``.
    """
    parts = parts_of(config)
    backend = jax.default_backend()
    program = _program(parts)
    state, images, labels = _everywhere(parts, (state, images, labels))
    rounding = ops.allow_extra_rounding() if backend == "cpu" else contextlib.nullcontext()
    with ops.compiled_for(backend), rounding:
        return program(
            _mesh(parts), config, steps, apply, normalisation, state, key, images, labels
        )


@functools.cache
def _program(parts: int) -> Any:
    return jax.jit(
        _epoch_in_parts,
        static_argnums=(0, 1, 2, 3, 4),
        donate_argnums=5,
        compiler_options=dict(OPTIONS) if parts > 1 else None,
    )


def _epoch_in_parts(
    mesh: Mesh, config: TrainConfig, steps, apply, normalisation, state: State, key, images, labels
):
    update = optimizer(config, steps).update
    task = config.task
    parts = mesh.size
    batches = images.shape[0] // config.batch
    order = jax.random.permutation(key, images.shape[0])[: batches * config.batch]
    order = order.reshape(batches, config.batch)

    def epoch(state, order, key, images, labels):
        # The permutation splits its key in two, which takes the numbers 0 and 1.
        noise = jax.random.fold_in(key, 2)
        if parts > 1:
            noise = jax.random.fold_in(noise, jax.lax.axis_index("part"))

        def loss_of(params, batch, number):
            pixels = pixels_of(images[batch])
            corrupted = pixels
            if task.corrupt is not None:
                corrupted = task.corrupt(jax.random.fold_in(noise, number), pixels)
            outputs = apply(params, normalise(corrupted, *normalisation))
            return task.judge(outputs[task.output], pixels, labels[batch])

        def step(state, batch_and_number):
            loss_and_gradient = jax.value_and_grad(loss_of, has_aux=True)
            evaluated = loss_and_gradient(state.params, *batch_and_number)
            if parts > 1:
                # One vector is faster than many: the parts wait longer than they add.
                flat, tree_of = ravel_pytree(evaluated)
                evaluated = tree_of(jax.lax.pmean(flat, "part"))
            (loss, measure), gradient = evaluated
            updates, optimizer_state = update(gradient, state.optimizer, state.params)
            params = optax.apply_updates(state.params, updates)
            return State(params, optimizer_state), (loss, measure)

        numbered = (order, jnp.arange(batches))
        state, (losses, measures) = jax.lax.scan(step, state, numbered)
        return state, losses.mean(), measures.mean()

    if parts > 1:
        whole = PartitionSpec()
        by_part = PartitionSpec(None, "part")
        epoch = jax.shard_map(
            epoch,
            mesh=mesh,
            in_specs=(whole, by_part, whole, whole, whole),
            out_specs=whole,
            check_vma=False,
        )
    return epoch(state, order, key, images, labels)
