"""How a network is trained: the configuration, the optimisers and schedules behind its words, and what is minimised."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from oipjax.model import Params
from oipjax.networks import AutoencoderConfig, CNNConfig


class Epoch(NamedTuple):
    """One line of the history: means over the epoch, and the accuracy afterwards on the images held out."""

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_loss: float
    learning_rate: float


class ReconstructionEpoch(NamedTuple):
    """As `Epoch`, of an autoencoder: the measure is the mean squared error of pixels in [0, 1]."""

    epoch: int
    loss: float
    train_mse: float
    validation_mse: float
    validation_loss: float
    learning_rate: float


class Task(NamedTuple):
    """How a network is judged.

    Attributes:
        output: the layer that is judged.
        judge: ``(output[n, ...], pixels[n, h, w, c], labels[n]) -> (loss, measure)``, means over
            the batch.
        line: of the history, made of (epoch, loss, measure, measure and loss held out, learning
            rate).
        best: ``max`` or ``min``: which measure is the best one.
    """

    output: str
    judge: Callable[[Array, Array, Array], tuple[Array, Array]]
    line: type
    best: Callable[..., Any]


def _classify(logits, pixels, labels):
    truth = labels.astype(jnp.int32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()
    return loss, jnp.mean((jnp.argmax(logits, 1) == truth).astype(jnp.float32))


def _reconstruct(loss, logits, pixels, labels):
    mse = jnp.mean(jnp.square(jax.nn.sigmoid(logits) - pixels))
    return mse if loss == "mse" else optax.sigmoid_binary_cross_entropy(logits, pixels).mean(), mse


TASKS = {
    "cross-entropy": Task("logits", _classify, Epoch, max),
    "mse": Task("image_pre", functools.partial(_reconstruct, "mse"), ReconstructionEpoch, min),
    "bce": Task("image_pre", functools.partial(_reconstruct, "bce"), ReconstructionEpoch, min),
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on, next to the data.

    Attributes:
        network: the architecture.
        optimizer: ``adam``, ``rmsprop`` or ``sgd``.
        learning_rate: at the start.
        schedule: of the learning rate over all steps: ``constant``; ``cosine`` to 0;
            ``exponential`` to 1 % of the start; ``inverse`` time, to a tenth; ``piecewise``: a
            tenth after half, a hundredth after three quarters.
        momentum: of ``sgd`` and ``rmsprop``.
        l2: the loss gets ``l2`` times the sum of squares of all kernels (not biases), as Keras'
            ``l2`` regulariser.
        epochs: how many.
        batch: images per step.
        validation: images held out of the training set to choose the best epoch; 0: keep the last
            epoch.
        seed: of the initial weights and the order of images.
        loss: ``cross-entropy`` of a classifier; of an autoencoder the mean over pixels of the
            squared error, ``mse``, or of the binary cross-entropy, ``bce``.
        corrupt: what an autoencoder gets to see instead of the images, noisy ones perhaps, while it
            is trained to give the images themselves: a frozen dataclass called as ``corrupt(key,
            pixels[n, h, w, c]) -> pixels``.
    """

    network: CNNConfig | AutoencoderConfig = field(default_factory=CNNConfig)
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "exponential", "inverse", "piecewise"] = "cosine"
    momentum: float = 0.9
    l2: float = 3e-4
    epochs: int = 12
    batch: int = 64
    validation: int = 5000
    seed: int = 0
    loss: Literal["cross-entropy", "bce", "mse"] = "cross-entropy"
    corrupt: Callable[[Array, Array], Array] | None = None

    def __post_init__(self):
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("l2", "momentum", "validation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.loss not in TASKS:
            raise ValueError(f"unknown loss {self.loss!r}; there are {', '.join(TASKS)}")
        if (self.loss == "cross-entropy") != isinstance(self.network, CNNConfig):
            raise ValueError(
                f"cross-entropy is for classifiers, mse and bce for autoencoders, got {self.loss!r} for {self.network}"
            )


def described(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON, to be kept with what was trained."""
    return asdict(replace(config, corrupt=None)) | {
        "corrupt": None if config.corrupt is None else repr(config.corrupt)
    }


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
            raise ValueError(
                f"unknown optimizer {config.optimizer!r}; there are adam, rmsprop, sgd"
            )
    return optax.chain(optax.add_decayed_weights(2 * config.l2, mask=_kernels), update)


def _kernels(params: Params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
