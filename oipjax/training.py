"""Training the network: a whole epoch in one compiled scan, the best epoch kept.

The epoch to keep is chosen by images held out of the *training* set, so that the test accuracy is measured, not fitted.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from oipjax import keys
from oipjax.data import Dataset, Split
from oipjax.model import Model, Params
from oipjax.networks import cnn

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on, next to the data.

    Attributes:
        network: the architecture.
        optimizer: ``adam``, ``rmsprop`` or ``sgd``.
        learning_rate: at the start.
        schedule: of the learning rate over all steps: ``constant``; ``cosine`` to 0; ``exponential`` to 1 % of the
            start; ``inverse`` time, to a tenth; ``piecewise``: a tenth after half, a hundredth after three quarters.
        momentum: of ``sgd`` and ``rmsprop``.
        l2: the loss gets ``l2`` times the sum of squares of all kernels (not biases), as Keras' ``l2`` regulariser.
        epochs: how many.
        batch: images per step.
        validation: images held out of the training set to choose the best epoch; 0: keep the last epoch.
        seed: of the initial weights and the order of images.
    """

    network: cnn.CNNConfig = field(default_factory=cnn.CNNConfig)
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "exponential", "inverse", "piecewise"] = "cosine"
    momentum: float = 0.9
    l2: float = 3e-4
    epochs: int = 12
    batch: int = 64
    validation: int = 5000
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("l2", "momentum", "validation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")


class Epoch(NamedTuple):
    """One line of the history: means over the epoch, and the accuracy afterwards on the images held out."""

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_loss: float
    learning_rate: float


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


class _State(NamedTuple):
    params: Params
    optimizer: optax.OptState


def schedule(config: TrainConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step, over ``steps`` steps in all."""
    rate = config.learning_rate
    match config.schedule:
        case "constant":
            return optax.constant_schedule(rate)
        case "cosine":
            return optax.cosine_decay_schedule(rate, steps)
        case "exponential":
            return optax.exponential_decay(rate, steps, 0.01)
        case "inverse":
            return lambda step: rate / (1 + 9 * step / steps)
        case "piecewise":
            return optax.piecewise_constant_schedule(rate, {steps // 2: 0.1, steps * 3 // 4: 0.1})
    raise ValueError(f"unknown schedule {config.schedule!r}")


def optimizer(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """The configured optimiser, with the gradient of the L2 term added first (coupled, as in Keras)."""
    rate = schedule(config, steps)
    match config.optimizer:
        case "adam":
            update = optax.adam(rate)
        case "rmsprop":
            update = optax.rmsprop(rate, decay=0.9, eps=1e-7, momentum=config.momentum or None)
        case "sgd":
            update = optax.sgd(rate, momentum=config.momentum or None, nesterov=config.momentum > 0)
        case _:
            raise ValueError(f"unknown optimizer {config.optimizer!r}; there are adam, rmsprop, sgd")
    return optax.chain(optax.add_decayed_weights(2 * config.l2, mask=_kernels), update)


def _kernels(params: Params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def train(
    key: Array,
    config: TrainConfig,
    data: Dataset,
    *,
    name: str | None = None,
    progress: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Train a network.

    Args:
        key: the root key; its `keys.TRAIN` stream is used.
        config: what to do.
        data: images ``uint8 [n, h, w, c]``; pixels are normalised to mean 0 and standard deviation 1 over the data set.
        name: of the model.
        progress: called after every epoch.

    Raises:
        ValueError: the images do not fit the network, or there are fewer of them than a batch; a loss is not finite.
    """
    images, labels = data.train
    if images.shape[1:] != config.network.input_shape:
        raise ValueError(f"the network takes {config.network.input_shape}, {data.name} has {images.shape[1:]}")
    if labels.max() >= config.network.classes:
        raise ValueError(f"{data.name} has {labels.max() + 1} classes, the network {config.network.classes}")
    count = len(images) - config.validation
    if count < config.batch:
        raise ValueError(
            f"{len(images)} images less {config.validation} held out leave {max(count, 0)}, fewer than a batch of "
            f"{config.batch}"
        )
    pixels = images.astype(np.float32) / 255
    mean, std = (tuple(float(f"{v:.4f}") for v in f(pixels, (0, 1, 2))) for f in (np.mean, np.std))
    del pixels
    train_stream = keys.stream(key, keys.TRAIN)
    params = cnn.init(jax.random.fold_in(train_stream, 0), config.network)
    model = cnn.model(params, config.network, name=name or f"{data.name}-cnn", mean=mean, std=std, classes=data.classes)
    held_out = Split(images[count:], labels[count:])
    steps = count // config.batch * config.epochs
    rate = schedule(config, steps)
    state = _State(params, optimizer(config, steps).init(params))
    on_device = jnp.asarray(images[:count]), jnp.asarray(labels[:count])
    best, history = (-1.0, 0, params), []
    for number in range(1, config.epochs + 1):
        epoch_key = jax.random.fold_in(train_stream, number)
        state, loss, accuracy = _epoch(config, steps, model.apply, (mean, std), state, epoch_key, *on_device)
        if not np.isfinite(loss):
            raise ValueError(f"the loss is no longer finite in epoch {number}: try a smaller --learning-rate")
        held, held_loss = float("nan"), float("nan")
        if config.validation:
            confusion, held_loss = evaluate(model, state.params, held_out)
            held = np.trace(confusion) / confusion.sum()
        learning_rate = np.asarray(rate(number * (count // config.batch))).item()
        epoch = Epoch(number, float(loss), float(accuracy), float(held), float(held_loss), learning_rate)
        history.append(epoch)
        if not config.validation or held > best[0]:
            best = held, number, jax.tree.map(np.asarray, state.params)
        if progress is not None:
            progress(epoch)
    model = dataclasses.replace(model, params=jax.tree.map(jnp.asarray, best[2]))
    confusion, _ = evaluate(model, model.params, data.test)
    return Trained(model, best[1], tuple(history), float(np.trace(confusion) / confusion.sum()), confusion)


def evaluate(model: Model, params: Params, split: Split) -> tuple[np.ndarray, float]:
    """Classify a split.

    Returns:
        The confusion matrix, ``int [true, predicted]``, and the mean cross-entropy in nats.
    """
    n, classes = len(split.images), model.shapes["logits"][0]
    padding = -n % EVALUATION_BATCH
    images = np.concatenate([split.images, np.zeros((padding, *split.images.shape[1:]), np.uint8)])
    images = images.reshape(-1, EVALUATION_BATCH, *split.images.shape[1:])
    logits = np.concatenate(np.asarray(_logits(model.apply, (model.mean, model.std), params, images)))[:n]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (split.labels, logits.argmax(1)), 1)
    loss = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(split.labels, jnp.int32))
    return confusion, float(loss.mean())


def _normalise(normalisation, images: Array) -> Array:
    mean, std = (jnp.asarray(v, jnp.float32) for v in normalisation)
    return (images.astype(jnp.float32) / 255 - mean.reshape(1, 1, 1, -1)) / std.reshape(1, 1, 1, -1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(apply, normalisation, params, batches):
    return jax.lax.map(lambda images: apply(params, _normalise(normalisation, images))["logits"], batches)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _epoch(config: TrainConfig, steps, apply, normalisation, state: _State, key, images, labels):
    tx = optimizer(config, steps)
    batches = images.shape[0] // config.batch
    order = jax.random.permutation(key, images.shape[0])[: batches * config.batch].reshape(batches, config.batch)

    def loss_of(params, batch):
        logits = apply(params, _normalise(normalisation, images[batch]))["logits"]
        truth = labels[batch].astype(jnp.int32)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()
        return loss, jnp.mean((jnp.argmax(logits, 1) == truth).astype(jnp.float32))

    def step(state, batch):
        (loss, accuracy), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params, batch)
        updates, opt = tx.update(grads, state.optimizer, state.params)
        return _State(optax.apply_updates(state.params, updates), opt), (loss, accuracy)

    state, (losses, accuracies) = jax.lax.scan(step, state, order)
    return state, losses.mean(), accuracies.mean()
