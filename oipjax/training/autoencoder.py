"""Autoencoders at work: training them, how well they give images back, and codes of many images at once.

`oipjax.networks.autoencoder` says what an autoencoder is; its ``encode`` and ``decode`` are pure
functions. Those here take arrays of any length and run them through one compiled program in batches
of one size.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from oipjax import keys
from oipjax.data import Dataset, Split
from oipjax.model import Params, normalise
from oipjax.networks import Autoencoder, AutoencoderConfig, autoencoder
from oipjax.storage import StateFile
from oipjax.training import corruptions
from oipjax.training import loop as training
from oipjax.training.config import ReconstructionEpoch, TrainConfig
from oipjax.training.corruptions import Corruption
from oipjax.training.loop import EVALUATION_BATCH

# Cross-entropy, also where the squared error is what counts: its gradient does not vanish where the
# sigmoid saturates. Faces are hardly ever black or white: there the squared error itself learns
# faster. Few images want many small steps: after equal passes through 8,250 faces the error was
# smaller with batches of 8 than of 16, and of 16 than of 32.
_DIGITS = TrainConfig(AutoencoderConfig(), learning_rate=2e-3, l2=0.0, epochs=10, loss="bce")
_FACES = AutoencoderConfig((64, 64, 3), (32, 64, 128, 256), 3, (2, 2, 2, 2), 256)
PRESETS = {
    "mnist": _DIGITS,
    "fashion": _DIGITS,
    "faces": replace(_DIGITS, network=_FACES, learning_rate=1e-3, epochs=32, batch=8, loss="mse"),
}
"""Trainings by name; the input's shape is to be replaced by that of the images at hand."""


class Trained(NamedTuple):
    """What a training leaves.

    Attributes:
        autoencoder: with the parameters of the best epoch.
        best_epoch: its number, from 1.
        history: one line each.
        test_mse: mean squared error of the test images' pixels, in [0, 1]; where a corruption is
            trained against, of what is made of corrupted ones.
        test_bce: binary cross-entropy of these pixels, in nats.
    """

    autoencoder: Autoencoder
    best_epoch: int
    history: tuple[ReconstructionEpoch, ...]
    test_mse: float
    test_bce: float


def train(
    key: Array,
    config: TrainConfig,
    data: Dataset,
    *,
    name: str | None = None,
    progress: Callable[[ReconstructionEpoch], None] | None = None,
    watch: Callable[[ReconstructionEpoch, Params], None] | None = None,
    state: Path | None = None,
    overwrite: bool = False,
) -> Trained:
    """Train an autoencoder; the best epoch is that of the least squared error on the images held out.

    Images held out and test images are corrupted as those that are trained with, always in the same
    way.

    Args:
        key: as in `training.train`, like all others.
        config: what to do; its ``loss`` is ``mse`` or ``bce``.
        data: images; their labels do not matter.
        name: of the autoencoder.
        progress: called after every epoch.
        watch: called after every epoch with a copy of the parameters as they are then.
        state: file for the state after each epoch.
        overwrite: begin anew if the state is that of another training.

    Raises:
        ValueError: as in `training.train`.
    """
    network = config.network
    if not isinstance(network, AutoencoderConfig):
        raise ValueError(
            f"an autoencoder is trained here, oipjax.training.loop trains classifiers, got {network}"
        )
    count = training.check_images(config, data)
    mean, std = training.normalisation(data.train.images)
    params = autoencoder.init(jax.random.fold_in(keys.stream(key, keys.TRAIN), 0), network)
    auto = Autoencoder(network, params, mean, std, name or f"{data.name}-autoencoder")
    noise = [jax.random.fold_in(keys.stream(key, keys.NOISE), number) for number in range(2)]

    def held(params: Params) -> tuple[float, float]:
        mse, bce = evaluate(auto, params, data.train.images[count:], config.corrupt, noise[0])
        return mse, mse if config.loss == "mse" else bce

    file = state and StateFile(state, training.plan(key, config, data), overwrite=overwrite)
    part = Split(*(array[:count] for array in data.train))
    fitted = training.fit(
        key, config, auto.model, part, held=held, progress=progress, watch=watch, state=file
    )
    auto = replace(auto, params=fitted.params)
    return Trained(
        auto,
        fitted.best_epoch,
        fitted.history,
        *evaluate(auto, auto.params, data.test.images, config.corrupt, noise[1]),
    )


def evaluate(
    auto: Autoencoder,
    params: Params,
    images: np.ndarray,
    corrupt: Corruption | None = None,
    key: Array | None = None,
) -> tuple[float, float]:
    """How well images ``uint8 [n, h, w, c]`` are given back: mean squared error and binary cross-entropy of pixels.

    Args:
        auto: the architecture and the normalisation.
        params: of the network.
        images: that are to be given back.
        corrupt: what is done to them before the network sees them.
        key: of the corruption, which needs one; image ``i`` is corrupted with ``fold_in(key, i)``.
    """
    if corrupt is not None and key is None:
        raise ValueError(
            f"expected a key to corrupt images with, for {corrupt}; give one as jax.random.key(0)"
        )
    errors = functools.partial(_errors, auto.model.apply, (auto.mean, auto.std), corrupt, key)
    both = _batched(errors, params, images, np.arange(len(images), dtype=np.uint32))
    return float(both[:, 0].mean()), float(both[:, 1].mean())


def encode(auto: Autoencoder, images: np.ndarray) -> np.ndarray:
    """Codes ``float32 [n, d]`` of images ``[n, h, w, c]``: uint8, or floats in [0, 1]."""
    return _batched(functools.partial(_call, auto.encode), auto.params, images)


def decode(auto: Autoencoder, codes: np.ndarray) -> np.ndarray:
    """Images ``float32 [n, h, w, c]`` in [0, 1] of latent vectors ``[n, d]``."""
    return _batched(functools.partial(_call, auto.decode), auto.params, codes)


def reconstruct(auto: Autoencoder, images: np.ndarray) -> np.ndarray:
    """What an autoencoder gives back of images ``[n, h, w, c]``: pixels ``float32`` in [0, 1], in one go."""
    return decode(auto, encode(auto, images))


def _batched(call: Callable[..., Array], params: Params, *inputs: np.ndarray) -> np.ndarray:
    """``call`` in batches of one size; the last one is filled up with zeros."""
    if not len(inputs[0]):
        raise ValueError("nothing to encode or decode: expected at least one image or code")
    outputs = []
    for first in range(0, len(inputs[0]), EVALUATION_BATCH):
        batches = [np.asarray(array[first : first + EVALUATION_BATCH]) for array in inputs]
        count = len(batches[0])
        rests = [
            np.zeros((EVALUATION_BATCH - count, *batch.shape[1:]), batch.dtype) for batch in batches
        ]
        filled = (jnp.asarray(np.concatenate(pair)) for pair in zip(batches, rests, strict=True))
        outputs.append(np.asarray(call(params, *filled))[:count])
    return np.concatenate(outputs)


@functools.partial(jax.jit, static_argnums=0)
def _call(function, params, inputs):
    return function(params, inputs)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _errors(apply, normalisation, corrupt, key, params, images, numbers):
    pixels = training.pixels_of(images)
    seen = pixels if corrupt is None else corruptions.each(corrupt, key, numbers, pixels)
    logits = apply(params, normalise(seen, *normalisation))["image_pre"]
    squared = jnp.square(jax.nn.sigmoid(logits) - pixels)
    return jnp.stack(
        [
            part.mean((1, 2, 3))
            for part in (squared, optax.sigmoid_binary_cross_entropy(logits, pixels))
        ],
        1,
    )
