"""Autoencoders: train one, judge its reconstructions, and encode or decode many images at once.

The network itself is in `oipjax.networks.autoencoder`; its ``encode`` and ``decode`` are pure
functions. The functions here take arrays of any length and run them through one compiled program in
batches of one size.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from oipjax import keys
from oipjax.data import Dataset
from oipjax.images import normalise
from oipjax.model import Params
from oipjax.networks import Autoencoder, AutoencoderConfig, autoencoder
from oipjax.training import corruptions
from oipjax.training.config import AutoencoderTrainConfig, ReconstructionEpoch
from oipjax.training.corruptions import Corruption
from oipjax.training.loop import (
    EVALUATION_BATCH,
    Callbacks,
    fit,
    normalisation,
    pixels_of,
    split_off,
    state_file,
)
from oipjax.training.results import PICTURED, Curve, Curves, Picture, Reconstructions

# Digits: cross-entropy, even if the squared error is what counts, because its gradient does not
# vanish where the sigmoid saturates.
_DIGITS = AutoencoderTrainConfig(learning_rate=2e-3, epochs=10)
# Faces are hardly ever black or white, so the squared error itself learns faster. With few images
# many small steps are better: after equal passes through 8,250 faces the error was smaller with
# batches of 8 than of 16, and of 16 than of 32.
_FACES = AutoencoderTrainConfig(
    network=AutoencoderConfig(
        input_shape=(64, 64, 3),
        filters=(32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        latent=256,
    ),
    learning_rate=1e-3,
    epochs=32,
    batch=8,
    loss="mse",
)
PRESETS = {"mnist": _DIGITS, "fashion": _DIGITS, "faces": _FACES}
"""Trainings by name; ``for_data`` replaces the input's shape by that of the images at hand."""


def reconstruction_curves(history: Sequence[ReconstructionEpoch]) -> tuple[Curve, ...]:
    """Loss and squared error of an autoencoder; one curve where the loss is the squared error.

    Args:
        history: one for each epoch.
    """
    error = Curve(
        label="mean squared error of pixels",
        train=[epoch.train_mse for epoch in history],
        held_out=[epoch.validation_mse for epoch in history],
        log=True,
    )
    if all(epoch.loss == epoch.train_mse for epoch in history):
        return (error,)
    loss = Curve(
        label="binary cross-entropy of pixels (nats)",
        train=[epoch.loss for epoch in history],
        held_out=[epoch.validation_loss for epoch in history],
        log=True,
    )
    return loss, error


class TrainedAutoencoder(NamedTuple):
    """A trained autoencoder, and what came of it.

    Attributes:
        autoencoder: the network, with the parameters of the best epoch.
        best_epoch: its number, from 1.
        history: one `ReconstructionEpoch` each.
        test_mse: mean squared error of the test images' pixels, in [0, 1]; if a corruption is
            trained against, of what the network makes of corrupted images.
        test_bce: binary cross-entropy of these pixels, in nats.
        test_images: how many test images there are.
        corrupt: the corruption that the network was trained to undo.
    """

    autoencoder: Autoencoder
    best_epoch: int
    history: tuple[ReconstructionEpoch, ...]
    test_mse: float
    test_bce: float
    test_images: int
    corrupt: Corruption | None = None

    @property
    def network(self) -> Autoencoder:
        """The autoencoder."""
        return self.autoencoder

    def summary(self) -> str:
        """Mean squared error on the test images."""
        return f"mean squared error {self.test_mse:.5f} on {self._tested()}"

    def _tested(self) -> str:
        kind = "test images" if self.corrupt is None else "corrupted test images"
        return f"{self.test_images:,} {kind}"

    def facts(self) -> dict[str, Any]:
        """Both errors, as plain JSON."""
        return {"test_mse": self.test_mse, "test_bce": self.test_bce}

    def curves(self) -> Curves:
        """The curves over the epochs."""
        epochs = tuple(epoch.epoch for epoch in self.history)
        return Curves(epochs, reconstruction_curves(self.history), self.best_epoch)

    def figures(self, data: Dataset) -> dict[str, Picture]:
        """The curves, and the first test images with their reconstructions."""
        images = data.test.images[:PICTURED]
        corrupted = None
        if self.corrupt is not None:
            key = keys.stream(jax.random.key(0), keys.NOISE)
            corrupted = corruptions.corrupted(self.corrupt, key, images)
        inputs = images if corrupted is None else corrupted
        latent = self.autoencoder.config.latent
        first = f"the first of {self._tested()}; each as {latent} numbers"
        return {
            "curves": self.curves(),
            "reconstructions": Reconstructions(
                images=images / 255,
                reconstructions=reconstruct(self.autoencoder, inputs),
                corrupted=corrupted,
                note=f"{first}; {self.summary()}",
            ),
        }


def train(
    key: Array,
    config: AutoencoderTrainConfig,
    data: Dataset,
    *,
    name: str | None = None,
    progress: Callable[[ReconstructionEpoch], None] | None = None,
    watch: Callable[[ReconstructionEpoch, Params], None] | None = None,
    state: Path | None = None,
    overwrite: bool = False,
) -> TrainedAutoencoder:
    """Train an autoencoder; the best epoch has the least squared error on the held-out images.

    Held-out images and test images are corrupted like the training images, always in the same way.

    Args:
        key: the root key, as in `oipjax.training.classifier.train`, like all others.
        config: the options.
        data: images; their labels do not matter.
        name: of the autoencoder; ``my-DATASET-autoencoder`` unless given.
        progress: called after every epoch.
        watch: called after every epoch with a copy of the parameters at that time.
        state: file for the state after each epoch.
        overwrite: begin anew if the state is that of another training.

    Raises:
        ValueError: as in `oipjax.training.classifier.train`.
    """
    if not isinstance(config, AutoencoderTrainConfig):
        raise ValueError(
            f"expected an AutoencoderTrainConfig, got {config}; "
            "oipjax.training.classifier trains classifiers"
        )
    network = config.network
    training_images, held_out = split_off(config, data)
    mean, std = normalisation(data.train.images)
    params = autoencoder.init(jax.random.fold_in(keys.stream(key, keys.TRAIN), 0), network)
    full_name = f"my-{data.name}-autoencoder" if name is None else name
    auto = Autoencoder(network, params, mean, std, full_name)
    noise = keys.stream(key, keys.NOISE)
    held_out_key = jax.random.fold_in(noise, 0)
    test_key = jax.random.fold_in(noise, 1)

    def held(params: Params) -> tuple[float, float]:
        mse, bce = evaluate(auto, params, held_out.images, config.corrupt, held_out_key)
        return mse, mse if config.loss == "mse" else bce

    fitted = fit(
        key,
        config,
        auto.model,
        training_images,
        held=held if len(held_out.images) else None,
        callbacks=Callbacks(
            on_epoch=progress,
            on_params=watch,
            state=state_file(state, key, config, data, overwrite=overwrite),
        ),
    )
    auto = replace(auto, params=fitted.params)
    mse, bce = evaluate(auto, auto.params, data.test.images, config.corrupt, test_key)
    return TrainedAutoencoder(
        autoencoder=auto,
        best_epoch=fitted.best_epoch,
        history=fitted.history,
        test_mse=mse,
        test_bce=bce,
        test_images=len(data.test.images),
        corrupt=config.corrupt,
    )


def evaluate(
    auto: Autoencoder,
    params: Params,
    images: np.ndarray,
    corrupt: Corruption | None = None,
    key: Array | None = None,
) -> tuple[float, float]:
    """How well images are reconstructed: mean squared error and binary cross-entropy of pixels.

    Args:
        auto: the architecture and the normalisation.
        params: of the network.
        images: the images to reconstruct, ``uint8 [n, h, w, c]``.
        corrupt: what is done to them before the network gets them.
        key: of the corruption, which needs one; image ``i`` is corrupted with ``fold_in(key, i)``.

    Raises:
        ValueError: there is a corruption without a key, or there are no images.
    """
    if corrupt is not None and key is None:
        raise ValueError(
            f"expected a key to corrupt images with, for {corrupt}; give one as jax.random.key(0)"
        )
    errors = functools.partial(_errors, auto.model.apply, (auto.mean, auto.std), corrupt, key)
    numbers = np.arange(len(images), dtype=np.uint32)
    of_images = _in_batches(errors, params, images, numbers)
    return float(of_images[:, 0].mean()), float(of_images[:, 1].mean())


def encode(auto: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Codes ``float32 [n, d]`` of images ``[n, h, w, c]``: uint8, or floats in [0, 1]."""
    return _in_batches(functools.partial(_call, auto.encode), auto.params, images)


def decode(auto: Autoencoder, codes: np.ndarray) -> np.ndarray:
    """Images ``float32 [n, h, w, c]`` in [0, 1] of latent vectors ``[n, d]``."""
    return _in_batches(functools.partial(_call, auto.decode), auto.params, codes)


def reconstruct(auto: Autoencoder, images: np.ndarray) -> np.ndarray:
    """An autoencoder's reconstructions of images ``[n, h, w, c]``: pixels ``float32`` in [0, 1]."""
    return decode(auto, encode(auto, images))


def _in_batches(call: Callable[..., Array], params: Params, *inputs: np.ndarray) -> np.ndarray:
    """``call`` in batches of one size; the last one is filled up with zeros."""
    if not len(inputs[0]):
        raise ValueError("nothing to encode or decode: expected at least one image or code")
    outputs = []
    for first in range(0, len(inputs[0]), EVALUATION_BATCH):
        batches = [np.asarray(array[first : first + EVALUATION_BATCH]) for array in inputs]
        output = call(params, *map(_filled, batches))
        outputs.append(np.asarray(output)[: len(batches[0])])
    return np.concatenate(outputs)


def _filled(batch: np.ndarray) -> Array:
    """A batch, filled up with zeros to `EVALUATION_BATCH`."""
    rest = np.zeros((EVALUATION_BATCH - len(batch), *batch.shape[1:]), batch.dtype)
    return jnp.asarray(np.concatenate([batch, rest]))


@functools.partial(jax.jit, static_argnums=0)
def _call(function, params, inputs):
    return function(params, inputs)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _errors(apply, normalisation, corrupt, key, params, images, numbers):
    pixels = pixels_of(images)
    inputs = pixels if corrupt is None else corruptions.each(corrupt, key, numbers, pixels)
    logits = apply(params, normalise(inputs, *normalisation))["image_pre"]
    squared = jnp.square(jax.nn.sigmoid(logits) - pixels)
    entropy = optax.sigmoid_binary_cross_entropy(logits, pixels)
    return jnp.stack([squared.mean((1, 2, 3)), entropy.mean((1, 2, 3))], 1)
