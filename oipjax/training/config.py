"""How a network is trained: the options, the optimisers and schedules, and the losses."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from jax import Array

from oipjax.data import Dataset
from oipjax.model import Params
from oipjax.networks import AutoencoderConfig, CNNConfig
from oipjax.training.corruptions import Corruption


class Epoch(NamedTuple):
    """One line of a classifier's history.

    Loss and ``train_accuracy`` are means over the epoch. The other measures are taken after it, on
    the held-out images.
    """

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float
    validation_loss: float
    learning_rate: float

    def summary(self) -> str:
        """The line for a person."""
        start = f"epoch {self.epoch:3d}  loss {self.loss:.4f}"
        accuracy = f"accuracy {self.train_accuracy:.4f}"
        return f"{start}  {accuracy}  held out {self.validation_accuracy:.4f}"


class ReconstructionEpoch(NamedTuple):
    """One line of an autoencoder's history.

    As in `Epoch`, but the measure is the mean squared error of pixels in [0, 1].
    """

    epoch: int
    loss: float
    train_mse: float
    validation_mse: float
    validation_loss: float
    learning_rate: float

    def summary(self) -> str:
        """The line for a person."""
        start = f"epoch {self.epoch:3d}  loss {self.loss:.4f}"
        error = f"squared error {self.train_mse:.5f}"
        return f"{start}  {error}  held out {self.validation_mse:.5f}"


class Task(NamedTuple):
    """How a network is judged.

    Attributes:
        output: name of the layer that is judged.
        judge: ``(output[n, ...], pixels[n, h, w, c], labels[n]) -> (loss, measure)``, means over
            the batch.
        line: makes a line of the history of (epoch, loss, measure, measure and loss on the held-out
            images, learning rate).
        best: ``max`` or ``min``, the function that picks the best measure.
        corrupt: ``(key, pixels) -> pixels``, applied to a batch before the network gets it.
    """

    output: str
    judge: Callable[[Array, Array, Array], tuple[Array, Array]]
    line: type
    best: Callable[..., Any]
    corrupt: Corruption | None = None


@dataclass(frozen=True)
class TrainConfig(abc.ABC):
    """The options that all trainings share.

    The kinds are `ClassifierTrainConfig` and `AutoencoderTrainConfig`.

    Attributes:
        network: the architecture.
        optimizer: name of the optimiser, as in optax.
        learning_rate: the learning rate at the start.
        schedule: course of the learning rate over all steps: ``constant``; ``cosine`` to 0;
            ``exponential`` to 1 % of the start; ``inverse`` time, to a tenth; ``piecewise``: a
            tenth after half, a hundredth after three quarters.
        momentum: momentum of ``sgd`` and ``rmsprop``.
        l2: the loss gets this number times the sum of squares of all kernels (not biases), as
            Keras' ``l2`` regulariser.
        epochs: passes through the training images.
        batch: images per step.
        validation: training images held out to choose the best epoch. ``auto``: a twelfth of
            them; 0: the last epoch is kept.
    """

    network: CNNConfig | AutoencoderConfig
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "exponential", "inverse", "piecewise"] = "cosine"
    momentum: float = 0.9
    l2: float = 3e-4
    epochs: int = 12
    batch: int = 64
    validation: int | Literal["auto"] = "auto"

    def __post_init__(self):
        _check_at_least("epochs", self.epochs, 1)
        _check_at_least("batch", self.batch, 1)
        _check_not_negative("l2", self.l2)
        _check_not_negative("momentum", self.momentum)
        if self.validation != "auto":
            _check_not_negative("validation", self.validation)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")

    @property
    @abc.abstractmethod
    def task(self) -> Task:
        """How the network is judged."""

    @abc.abstractmethod
    def for_data(self, data: Dataset) -> Self:
        """The configuration with a data set's input shape, and with ``validation`` as a number."""

    def held_out(self, count: int) -> int:
        """How many of ``count`` training images are held out."""
        return count // 12 if self.validation == "auto" else self.validation

    def describe(self) -> dict[str, Any]:
        """The configuration as plain JSON, to be kept with what was trained."""
        return asdict(self)


@dataclass(frozen=True)
class ClassifierTrainConfig(TrainConfig):
    """How a classifier is trained.

    Attributes:
        network: the architecture.
    """

    network: CNNConfig = CNNConfig()

    @property
    def task(self) -> Task:
        """Cross-entropy; the best epoch has the greatest accuracy."""
        return CLASSIFICATION

    def for_data(self, data: Dataset) -> Self:
        """See `TrainConfig`; the classes are those of the data set as well."""
        network = dataclasses.replace(
            self.network,
            input_shape=data.train.images.shape[1:],
            classes=max(1, len(data.classes)),
        )
        held_out = self.held_out(len(data.train.images))
        return dataclasses.replace(self, network=network, validation=held_out)


@dataclass(frozen=True)
class AutoencoderTrainConfig(TrainConfig):
    """How an autoencoder is trained.

    Attributes:
        network: the architecture.
        loss: mean over pixels of the binary cross-entropy (``bce``) or of the squared error
            (``mse``).
        corrupt: what is done to images before the network gets them, which it is trained to undo:
            ``noise:SIGMA`` (Gaussian, clipped to the range of pixels, 0 to 1), ``dropped:SHARE``
            (of the pixels), ``grey``; several are applied in this order. In Python a frozen
            dataclass that is called as ``corrupt(key, pixels[n, h, w, c]) -> pixels``.
    """

    network: AutoencoderConfig = AutoencoderConfig()
    l2: float = 0.0
    loss: Literal["bce", "mse"] = "bce"
    corrupt: Corruption | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.loss not in RECONSTRUCTION:
            names = ", ".join(RECONSTRUCTION)
            raise ValueError(f"unknown loss {self.loss!r}; there are {names}")

    @property
    def task(self) -> Task:
        """The loss; the best epoch has the least squared error."""
        return RECONSTRUCTION[self.loss]._replace(corrupt=self.corrupt)

    def for_data(self, data: Dataset) -> Self:
        """See `TrainConfig`."""
        network = dataclasses.replace(self.network, input_shape=data.train.images.shape[1:])
        held_out = self.held_out(len(data.train.images))
        return dataclasses.replace(self, network=network, validation=held_out)

    def describe(self) -> dict[str, Any]:
        """See `TrainConfig`; a corruption is described by its ``repr``."""
        corrupt = None if self.corrupt is None else repr(self.corrupt)
        return asdict(dataclasses.replace(self, corrupt=None)) | {"corrupt": corrupt}


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _check_not_negative(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")


def _classify(logits, pixels, labels):
    del pixels
    truth = labels.astype(jnp.int32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()
    is_right = jnp.argmax(logits, 1) == truth
    return loss, jnp.mean(is_right.astype(jnp.float32))


def _reconstruct(loss, logits, pixels, labels):
    del labels
    mse = jnp.mean(jnp.square(jax.nn.sigmoid(logits) - pixels))
    if loss == "mse":
        return mse, mse
    return optax.sigmoid_binary_cross_entropy(logits, pixels).mean(), mse


CLASSIFICATION = Task(output="logits", judge=_classify, line=Epoch, best=max)
RECONSTRUCTION = {
    loss: Task(
        output="image_pre",
        judge=functools.partial(_reconstruct, loss),
        line=ReconstructionEpoch,
        best=min,
    )
    for loss in ("bce", "mse")
}
"""The task of an autoencoder, by the name of its loss."""


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
    """The optimiser; the gradient of the L2 term is added first (coupled, as in Keras)."""
    rate = schedule(config, steps)
    momentum = config.momentum if config.momentum > 0 else None
    match config.optimizer:
        case "adam":
            update = optax.adam(rate)
        case "rmsprop":
            update = optax.rmsprop(rate, decay=0.9, eps=1e-7, momentum=momentum)
        case "sgd":
            update = optax.sgd(rate, momentum=momentum, nesterov=momentum is not None)
        case _:
            names = "adam, rmsprop, sgd"
            raise ValueError(f"unknown optimizer {config.optimizer!r}; there are {names}")
    decay = optax.add_decayed_weights(2 * config.l2, mask=_kernels)
    return optax.chain(decay, update)


def _kernels(params: Params):
    """Which of the parameters are kernels."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
