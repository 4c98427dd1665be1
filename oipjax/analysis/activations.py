"""Activations of many images, and the images that excite each map most."""

from collections.abc import Sequence

import jax
import numpy as np

from oipjax.model import Model
from oipjax.runtime import OPTIONS, Program, checked_tile, in_flight, padded, tiles


def layer_activations(
    model: Model,
    images: np.ndarray,
    layers: Sequence[str] | None = None,
    *,
    tile: int | None = None,
) -> dict[str, np.ndarray]:
    """Activations of many images, tile by tile; layers that are not named are not computed.

    Args:
        model: the network.
        images: network inputs ``[n, h, w, c]``.
        layers: names; all unless given.
        tile: batch size of the compiled program; see `oipjax.runtime.default_tile`.

    Returns:
        ``{layer: float32 [n, h, w, k] or [n, k]}`` in the given order.

    Raises:
        ValueError: there is no such layer, or the images do not fit.
    """
    given = model.layers if layers is None else layers
    names = tuple(model.layer(name).name for name in given)
    images = np.asarray(images, np.float32)
    if images.shape[1:] != model.input_shape or not len(images):
        shape = ", ".join(map(str, model.input_shape))
        raise ValueError(
            f"{model.name} takes images [n, {shape}] with n at least 1, got {list(images.shape)}"
        )
    size = checked_tile(tile)
    like = jax.ShapeDtypeStruct((size, *model.input_shape), np.float32)
    program = Program(_forward, (model.network, names), (model.params,), (like,))

    def compute(number: int, batch: np.ndarray) -> dict[str, np.ndarray]:
        found = program(number, padded(batch, size))
        return {name: np.asarray(array)[: len(batch)] for name, array in found.items()}

    parts = list(in_flight(compute, tiles(images, size)))
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _compute_layers(network, names, params, images):
    return network.activations(params, images, names)


_forward = jax.jit(_compute_layers, static_argnums=(0, 1), compiler_options=OPTIONS)


def map_means(activation: np.ndarray) -> np.ndarray:
    """The scores ``[n, k]`` of all maps: means over h and w of ``[n, h, w, k]`` or ``[n, k]``."""
    sides = tuple(range(1, activation.ndim - 1))
    return activation.mean(axis=sides)


def exemplars(scores: np.ndarray, keep: int) -> np.ndarray:
    """The images that excite each map most; of equal ones the first.

    Args:
        scores: ``[n, k]``, of images and maps.
        keep: how many images, ``r``.

    Returns:
        Indices of images, ``[k, r]``, the best one first.

    Raises:
        ValueError: there are fewer images.
    """
    if not 1 <= keep <= len(scores):
        raise ValueError(
            f"keep must be between 1 and the number of images ({len(scores)}), got {keep}"
        )
    return np.argsort(-scores, axis=0, kind="stable")[:keep].T


def class_means(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean features of each class.

    Args:
        features: ``[n, ...]``.
        labels: ``[n]``.

    Returns:
        The classes ``[m]`` in order, and the means ``[m, ...]``.
    """
    classes = np.unique(labels)
    means = [features[labels == label].mean(0, dtype=np.float64) for label in classes]
    return classes, np.stack(means)
