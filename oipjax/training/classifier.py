"""Classifiers: train one, and judge it on labelled images."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from oipjax import keys
from oipjax.data import Dataset, Split
from oipjax.images import normalise
from oipjax.model import Model, Params
from oipjax.networks import cnn
from oipjax.training.config import ClassifierTrainConfig, Epoch
from oipjax.training.loop import (
    EVALUATION_BATCH,
    Callbacks,
    fit,
    normalisation,
    pixels_of,
    split_off,
    state_file,
)
from oipjax.training.results import ConfusionMatrix, Curve, Curves, Picture


def accuracy_curves(history: Sequence[Epoch]) -> tuple[Curve, ...]:
    """Loss and accuracy of a classifier.

    Args:
        history: one for each epoch.
    """
    loss = Curve(
        label="cross-entropy (nats)",
        train=[epoch.loss for epoch in history],
        held_out=[epoch.validation_loss for epoch in history],
        log=True,
    )
    accuracy = Curve(
        label="accuracy (%)",
        train=[100 * epoch.train_accuracy for epoch in history],
        held_out=[100 * epoch.validation_accuracy for epoch in history],
        log=False,
    )
    return loss, accuracy


class TrainedClassifier(NamedTuple):
    """A trained classifier, and what came of it.

    Attributes:
        model: the network, with the parameters of the best epoch.
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

    @property
    def network(self) -> Model:
        """The model."""
        return self.model

    def summary(self) -> str:
        """Accuracy on the test images."""
        return f"{100 * self.test_accuracy:.2f} % of {self.confusion.sum():,} test images right"

    def facts(self) -> dict[str, Any]:
        """Accuracy and confusion matrix, as plain JSON."""
        return {"test_accuracy": self.test_accuracy, "confusion": self.confusion.tolist()}

    def curves(self) -> Curves:
        """The curves over the epochs."""
        epochs = tuple(epoch.epoch for epoch in self.history)
        return Curves(epochs, accuracy_curves(self.history), self.best_epoch)

    def figures(self, data: Dataset) -> dict[str, Picture]:
        """The curves and the confusion matrix."""
        return {
            "curves": self.curves(),
            "confusion": ConfusionMatrix(self.confusion, data.classes),
        }


def train(
    key: Array,
    config: ClassifierTrainConfig,
    data: Dataset,
    *,
    name: str | None = None,
    progress: Callable[[Epoch], None] | None = None,
    watch: Callable[[Epoch, Params], None] | None = None,
    state: Path | None = None,
    overwrite: bool = False,
) -> TrainedClassifier:
    """Train a classifier.

    Args:
        key: the root key; its `keys.TRAIN` stream decides the initial weights and the order of
            images.
        config: the options.
        data: images ``uint8 [n, h, w, c]``; pixels are normalised to mean 0 and standard deviation
            1 over the data set.
        name: the model's name; ``my-DATASET-cnn`` unless given.
        progress: called after every epoch.
        watch: called after every epoch with a copy of the parameters at that time.
        state: file for the state after each epoch. An interrupted training whose state is there
            goes on, without reporting its epochs again, and ends in the same bits as without the
            interruption. The caller who stores the result removes the file; `checkpoint.save` does,
            if it lies in the checkpoint's folder.
        overwrite: begin anew if the state is that of another training.

    Raises:
        ValueError: the images do not fit the network, or there are fewer of them than a batch; a
            loss is not finite; the state is that of another training.
    """
    if not isinstance(config, ClassifierTrainConfig):
        raise ValueError(
            f"expected a ClassifierTrainConfig, got {config}; "
            "oipjax.training.autoencoder trains autoencoders"
        )
    network = config.network
    training_images, held_out = split_off(config, data)
    _check_classes(network, data)
    mean, std = normalisation(data.train.images)
    model = cnn.model(
        cnn.init(jax.random.fold_in(keys.stream(key, keys.TRAIN), 0), network),
        network,
        name=f"my-{data.name}-cnn" if name is None else name,
        mean=mean,
        std=std,
        classes=data.classes,
    )

    def measure_held_out(params: Params) -> tuple[float, float]:
        confusion, loss = evaluate(model, params, held_out)
        return _accuracy(confusion), loss

    fitted = fit(
        key,
        config,
        model,
        training_images,
        held=measure_held_out if len(held_out.images) else None,
        callbacks=Callbacks(
            on_epoch=progress,
            on_params=watch,
            state=state_file(state, key, config, data, overwrite=overwrite),
        ),
    )
    model = dataclasses.replace(model, params=fitted.params)
    confusion, _ = evaluate(model, model.params, data.test)
    return TrainedClassifier(
        model=model,
        best_epoch=fitted.best_epoch,
        history=fitted.history,
        test_accuracy=float(_accuracy(confusion)),
        confusion=confusion,
    )


def _check_classes(network: cnn.CNNConfig, data: Dataset) -> None:
    if not data.classes:
        raise ValueError(
            f"{data.name} has no classes: a classifier needs a sub-folder of images for each, "
            "or labels"
        )
    classes = data.train.labels.max() + 1
    if classes > network.classes:
        raise ValueError(f"{data.name} has {classes} classes, the network {network.classes}")


def _accuracy(confusion: np.ndarray) -> float:
    return np.trace(confusion) / confusion.sum()


def evaluate(model: Model, params: Params, split: Split) -> tuple[np.ndarray, float]:
    """Classify a split.

    Returns:
        The confusion matrix, ``int [true, predicted]``, and the mean cross-entropy in nats.
    """
    count = len(split.images)
    shape = split.images.shape[1:]
    padding = np.zeros((-count % EVALUATION_BATCH, *shape), np.uint8)
    batches = np.concatenate([split.images, padding]).reshape(-1, EVALUATION_BATCH, *shape)
    outputs = _logits(model.apply, (model.mean, model.std), params, batches)
    logits = np.concatenate(np.asarray(outputs))[:count]
    classes = model.shapes["logits"][0]
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (split.labels, logits.argmax(1)), 1)
    loss = optax.softmax_cross_entropy_with_integer_labels(
        jnp.asarray(logits), jnp.asarray(split.labels, jnp.int32)
    )
    return confusion, float(loss.mean())


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(apply, normalisation, params, batches):
    def logits(images):
        return apply(params, normalise(pixels_of(images), *normalisation))["logits"]

    return jax.lax.map(logits, batches)
