"""Training: a whole epoch in one compiled scan, the best epoch kept, and after an interruption the same bits.

The epoch to keep is chosen by images held out of the *training* set, so that what is said of the
test images is measured, not fitted. `fit` trains any network whose loss is one of `TASKS`; `train`
makes classifiers of it, and `oipjax.training.autoencoder` autoencoders.

On a CPU each device takes a part of every batch (`parts_of`), so that a process trains faster which
begins with ``jax.config.update("jax_num_cpu_devices", 2)``, as the command line does on two cores
(``experiments/README.md``). And 3x3 convolutions are computed under
`oipjax.ops.allow_extra_rounding`; images held out are judged by the network as it is elsewhere.
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
from oipjax.model import Model, Params, normalise
from oipjax.networks import cnn
from oipjax.pytrees import fingerprint
from oipjax.runtime import OPTIONS
from oipjax.storage import StateFile, surroundings
from oipjax.training.config import TASKS, Epoch, TrainConfig, described, optimizer, schedule

EVALUATION_BATCH = 500
LEAST_PART = 16
"""Images of a part of a batch that a device takes."""


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        model: with the parameters of the best epoch.
        best_epoch: its number, from 1.
        history: one `Epoch` each.
        test_accuracy: share of test images classified rightly, by the best epoch's network.
        confusion: ``int [true class, predicted class]`` counts on the test images.
    """

    model: Model
    best_epoch: int
    history: tuple[Epoch, ...]
    test_accuracy: float
    confusion: np.ndarray


class Fitted(NamedTuple):
    """What `fit` leaves: the parameters of the best epoch, its number from 1, and one line of history per epoch."""

    params: Params
    best_epoch: int
    history: tuple[Any, ...]


class _State(NamedTuple):
    params: Params
    optimizer: optax.OptState


def train(
    key: Array,
    config: TrainConfig,
    data: Dataset,
    *,
    name: str | None = None,
    progress: Callable[[Epoch], None] | None = None,
    watch: Callable[[Epoch, Params], None] | None = None,
    state: Path | None = None,
    overwrite: bool = False,
) -> Trained:
    """Train a classifier.

    Args:
        key: the root key; its `keys.TRAIN` stream is used.
        config: what to do.
        data: images ``uint8 [n, h, w, c]``; pixels are normalised to mean 0 and standard deviation
            1 over the data set.
        name: of the model.
        progress: called after every epoch.
        watch: called after every epoch with a copy of the parameters as they are then.
        state: file for the state after each epoch. What an interrupted training has left there goes
            on, without telling its epochs again, and ends in the same bits as without it. Who
            stores the result takes it away; `checkpoint.save` does, if it lies in the checkpoint's
            folder.
        overwrite: begin anew if the state is that of another training.

    Raises:
        ValueError: the images do not fit the network, or there are fewer of them than a batch; a
            loss is not finite; the state is that of another training.
    """
    network = config.network
    if not isinstance(network, cnn.CNNConfig):
        raise ValueError(
            f"a classifier is trained here, oipjax.training.autoencoder trains autoencoders, got {network}"
        )
    images, labels = data.train
    count = check_images(config, data)
    if not data.classes:
        raise ValueError(
            f"{data.name} has no classes: a classifier needs a sub-folder of images for each, or labels"
        )
    if labels.max() >= network.classes:
        raise ValueError(
            f"{data.name} has {labels.max() + 1} classes, the network {network.classes}"
        )
    mean, std = normalisation(images)
    params = cnn.init(jax.random.fold_in(keys.stream(key, keys.TRAIN), 0), network)
    model = cnn.model(
        params, network, name=name or f"{data.name}-cnn", mean=mean, std=std, classes=data.classes
    )
    held_out = Split(images[count:], labels[count:])

    def held(params: Params) -> tuple[float, float]:
        confusion, loss = evaluate(model, params, held_out)
        return np.trace(confusion) / confusion.sum(), loss

    file = state and StateFile(state, plan(key, config, data), overwrite=overwrite)
    train_split = Split(images[:count], labels[:count])
    fitted = fit(
        key, config, model, train_split, held=held, progress=progress, watch=watch, state=file
    )
    model = dataclasses.replace(model, params=fitted.params)
    confusion, _ = evaluate(model, model.params, data.test)
    accuracy = float(np.trace(confusion) / confusion.sum())
    return Trained(model, fitted.best_epoch, fitted.history, accuracy, confusion)


def check_images(config: TrainConfig, data: Dataset) -> int:
    """How many images are trained with; a ValueError if they do not fit the network, or are fewer than a batch."""
    images = data.train.images
    if images.shape[1:] != config.network.input_shape:
        raise ValueError(
            f"the network takes {config.network.input_shape}, {data.name} has {images.shape[1:]}"
        )
    count = len(images) - config.validation
    if count < config.batch:
        raise ValueError(
            f"{len(images)} images less {config.validation} held out leave {max(count, 0)}, fewer than a batch of "
            f"{config.batch}"
        )
    return count


def normalisation(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel's pixels in [0, 1], of ``uint8 [n, h, w, c]``, to four digits."""
    total, squares = np.zeros(images.shape[3]), np.zeros(images.shape[3])
    for first in range(0, len(images), EVALUATION_BATCH):
        pixels = images[first : first + EVALUATION_BATCH] / 255
        total, squares = total + pixels.sum((0, 1, 2)), squares + np.square(pixels).sum((0, 1, 2))
    mean = total / (images.size / images.shape[3])
    std = np.sqrt(np.maximum(squares / (images.size / images.shape[3]) - mean**2, 0))
    if std.min() < 1e-4:
        raise ValueError(
            "all pixels of a channel are equal: there is nothing to learn from such images"
        )
    mean, std = (tuple(float(f"{value:.4f}") for value in values) for values in (mean, std))
    return mean, std


def plan(key: Array, config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """All that decides the bits of a training, as plain JSON."""
    return {
        "config": described(config),
        "convolutions": "large tiles" if jax.default_backend() == "cpu" else "the library's",
        "key": {
            "implementation": str(jax.random.key_impl(key)),
            "data": np.asarray(jax.random.key_data(key)).tolist(),
        },
        "data": {
            "name": data.name,
            "sha256": fingerprint({"images": data.train.images, "labels": data.train.labels}),
        },
        **surroundings(),
    }


def fit(
    key: Array,
    config: TrainConfig,
    model: Model,
    data: Split,
    *,
    held: Callable[[Params], tuple[float, float]],
    progress: Callable[[Any], None] | None = None,
    watch: Callable[[Any, Params], None] | None = None,
    state: StateFile | None = None,
) -> Fitted:
    """Train any network, from the parameters that it has.

    Args:
        key: the root key; its `keys.TRAIN` stream is used.
        config: what to do; ``loss`` says by which of `TASKS`.
        model: the network; its ``apply`` gives the layer that the task judges. It should not be
            jitted, or held-out images are judged with the rounding of the training.
        data: to train with.
        held: measure and loss of some parameters on images held out; asked after each epoch if
            ``config.validation``.
        progress: called after every epoch with its line of the history.
        watch: likewise, with a copy of the parameters as well.
        state: is read first, and written after each epoch.

    Raises:
        ValueError: a loss is not finite; the state is that of another training.
    """
    task, stream = TASKS[config.loss], keys.stream(key, keys.TRAIN)
    batches = len(data.images) // config.batch
    steps = batches * config.epochs
    rate = schedule(config, steps)
    params = jax.tree.map(jnp.array, model.params)  # a copy: an epoch takes the state for itself
    now = _State(params, optimizer(config, steps).init(params))
    best, history = (None, 0, model.params), []
    kept = state.read((now, best[2])) if state else None
    if kept is not None:
        (now, params), facts = kept
        now = jax.tree.map(jnp.asarray, now)
        best, history = (*facts["best"], params), [task.line(*line) for line in facts["history"]]
    # Each device has all images: a copy of the data set.
    on_device = _everywhere(parts_of(config), (data.images, data.labels))
    for number in range(len(history) + 1, config.epochs + 1):
        epoch_key = jax.random.fold_in(stream, number)
        now, *means = _epoch(
            config, steps, model.apply, (model.mean, model.std), now, epoch_key, *on_device
        )
        loss, measure = (float(mean) for mean in means)
        if not np.isfinite(loss):
            raise ValueError(
                f"the loss is no longer finite in epoch {number}: try a smaller --learning-rate"
            )
        params = jax.tree.map(np.asarray, now.params)
        there, there_loss = held(params) if config.validation else (float("nan"), float("nan"))
        learning_rate = np.asarray(rate(number * batches)).item()
        epoch = task.line(number, loss, measure, float(there), float(there_loss), learning_rate)
        history.append(epoch)
        if (
            not config.validation
            or best[0] is None
            or (there != best[0] and task.best(there, best[0]) == there)
        ):
            best = float(there), number, params
        if state is not None:
            state.write((now, best[2]), {"best": best[:2], "history": history})
        if progress is not None:
            progress(epoch)
        if watch is not None:
            watch(epoch, params)
    return Fitted(jax.tree.map(jnp.asarray, best[2]), best[1], tuple(history))


def evaluate(model: Model, params: Params, split: Split) -> tuple[np.ndarray, float]:
    """Classify a split.

    Returns:
        The confusion matrix, ``int [true, predicted]``, and the mean cross-entropy in nats.
    """
    n, classes = len(split.images), model.shapes["logits"][0]
    padding = -n % EVALUATION_BATCH
    images = np.concatenate([split.images, np.zeros((padding, *split.images.shape[1:]), np.uint8)])
    images = images.reshape(-1, EVALUATION_BATCH, *split.images.shape[1:])
    logits = np.concatenate(
        np.asarray(_logits(model.apply, (model.mean, model.std), params, images))
    )[:n]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (split.labels, logits.argmax(1)), 1)
    loss = optax.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits), jnp.asarray(split.labels, jnp.int32)
    )
    return confusion, float(loss.mean())


def pixels_of(images: Array) -> Array:
    """Pixels in [0, 1] of ``uint8`` images."""
    return images.astype(jnp.float32) / 255


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(apply, normalisation, params, batches):
    return jax.lax.map(
        lambda images: apply(params, normalise(pixels_of(images), *normalisation))["logits"],
        batches,
    )


def parts_of(config: TrainConfig) -> int:
    """In how many parts a batch is computed at the same time: on a CPU one for each device, none of them too small.

    A batch's gradient is the mean of its parts'. So the number of devices is among what decides the
    bits; the number of cores is not, since of several parts each stays on one core.
    """
    most = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    fit = [
        n for n in range(1, most + 1) if config.batch % n == 0 and config.batch // n >= LEAST_PART
    ]
    return max(fit, default=1)


@functools.cache
def _mesh(parts: int) -> Mesh:
    return jax.make_mesh((parts,), ("part",), (AxisType.Auto,), devices=jax.local_devices()[:parts])


def _everywhere(parts: int, tree: Any) -> Any:
    """Arrays on the devices of all parts."""
    return jax.device_put(tree, NamedSharding(_mesh(parts), PartitionSpec()) if parts > 1 else None)


def _epoch(config: TrainConfig, steps, apply, normalisation, state: _State, key, images, labels):
    """The state after an epoch, and its mean loss and measure."""
    parts, backend = parts_of(config), jax.default_backend()
    state, images, labels = _everywhere(parts, (state, images, labels))
    with (
        ops.compiled_for(backend),
        ops.allow_extra_rounding() if backend == "cpu" else contextlib.nullcontext(),
    ):
        return _program(parts)(
            _mesh(parts), config, steps, apply, normalisation, state, key, images, labels
        )


@functools.cache
def _program(parts: int) -> Any:
    options = dict(OPTIONS) if parts > 1 else None
    return jax.jit(
        _epoch_in_parts, static_argnums=(0, 1, 2, 3, 4), donate_argnums=5, compiler_options=options
    )


def _epoch_in_parts(
    mesh: Mesh, config: TrainConfig, steps, apply, normalisation, state: _State, key, images, labels
):
    tx, task = optimizer(config, steps), TASKS[config.loss]
    parts, batches = mesh.size, images.shape[0] // config.batch
    order = jax.random.permutation(key, images.shape[0])[: batches * config.batch].reshape(
        batches, config.batch
    )

    def epoch(state, order, key, images, labels):
        # The permutation splits its key in two, which takes the numbers 0 and 1.
        noise = jax.random.fold_in(key, 2)
        noise = jax.random.fold_in(noise, jax.lax.axis_index("part")) if parts > 1 else noise

        def loss_of(params, batch, number):
            pixels = pixels_of(images[batch])
            seen = (
                pixels
                if config.corrupt is None
                else config.corrupt(jax.random.fold_in(noise, number), pixels)
            )
            return task.judge(
                apply(params, normalise(seen, *normalisation))[task.output], pixels, labels[batch]
            )

        def step(state, now):
            found = jax.value_and_grad(loss_of, has_aux=True)(state.params, *now)
            if parts > 1:
                # As one vector: to meet takes longer than to sum.
                flat, tree_of = ravel_pytree(found)
                found = tree_of(jax.lax.pmean(flat, "part"))
            (loss, measure), grads = found
            updates, opt = tx.update(grads, state.optimizer, state.params)
            return _State(optax.apply_updates(state.params, updates), opt), (loss, measure)

        state, (losses, measures) = jax.lax.scan(step, state, (order, jnp.arange(batches)))
        return state, losses.mean(), measures.mean()

    if parts > 1:
        whole, cut = PartitionSpec(), PartitionSpec(None, "part")
        given = whole, cut, whole, whole, whole
        epoch = jax.shard_map(epoch, mesh=mesh, in_specs=given, out_specs=whole, check_vma=False)
    return epoch(state, order, key, images, labels)
