"""Scores of a network's units: maps, nodes, directions, classes and whole layers."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.model import Activations, Model
from oipjax.objectives.base import Objective, Target, check_no_target


@dataclass(frozen=True)
class Map(Objective):
    """The mean over h, w of one map of ``layer``: *the* score of oipjax.

    The target is the map's index.
    """

    layer: str

    def __call__(self, activations, image, target):
        return jnp.take(spatial_mean(activations[self.layer]), target, axis=0)

    @property
    def channel_layer(self):
        return self.layer

    def pre_activation(self, model):
        return _pre_activation(self, model)

    def highest_node(self, activation: Array, target: Target) -> Array:
        """The largest node of the target's map in ``activation [h, w, k]``, a scalar."""
        return jnp.max(jnp.take(activation, target, axis=-1))

    def check(self, model, targets):
        layer = model.layer(self.layer)
        return _checked_indices(targets, (layer.maps,), f"map of {layer.name}")


@dataclass(frozen=True)
class Node(Objective):
    """One node of ``layer``.

    The target is ``(i, j, map)``; in a layer without space it is the node's index.
    """

    layer: str

    def __call__(self, activations, image, target):
        return self.highest_node(activations[self.layer], target)

    def pre_activation(self, model):
        return _pre_activation(self, model)

    def highest_node(self, activation: Array, target: Target) -> Array:
        """The target itself in ``activation [h, w, k]``, a scalar."""
        return activation[tuple(target) if target.ndim else target]

    def check(self, model, targets):
        shape = model.layer(self.layer).shape
        return _checked_indices(targets, shape, f"node of {self.layer}")


@dataclass(frozen=True)
class Direction(Objective):
    """The mean over h, w of ``layer``'s activations along a direction.

    The target is a vector ``[k]``.
    """

    layer: str

    def __call__(self, activations, image, target):
        return jnp.vdot(spatial_mean(activations[self.layer]), target)

    def check(self, model, targets):
        maps = model.layer(self.layer).maps
        targets = np.asarray(targets, np.float32)
        if targets.ndim != 2 or targets.shape[1] != maps:
            raise ValueError(
                f"directions in {self.layer} are [n, {maps}], got {list(targets.shape)}"
            )
        if not np.all(np.isfinite(targets)):
            raise ValueError(f"directions in {self.layer} must be finite")
        return targets


@dataclass(frozen=True)
class Class(Map):
    """The logit of one class; the target is the class's index."""

    layer: str = "logits"


@dataclass(frozen=True)
class Layer(Objective):
    """The mean square of all of a layer's activations, as in deep dreams (Mordvintsev et al. 2015).

    It takes no target.
    """

    layer: str
    takes_target: ClassVar[bool] = False

    def __call__(self, activations, image, target):
        return jnp.mean(jnp.square(activations[self.layer]))

    def check(self, model, targets):
        model.layer(self.layer)
        return check_no_target(self, targets)


@dataclass(frozen=True)
class PreActivation:
    """A `Map` or `Node`, continued below its floor by its value before the nonlinearity.

    A map behind a ReLU that is off has score 0 and no gradient. Its largest pre-activation node has
    a gradient, and says how far from its floor the map is. The mean of a ReLU is above the floor
    exactly where that node is. So score and node join into one `response`, which never goes down as
    the image comes nearer to activating the map.

    Attributes:
        objective: the map or node.
        pre: the layer before the nonlinearity.
        floor: the nonlinearity's least value.
    """

    objective: Map | Node
    pre: str
    floor: float

    def __call__(self, activations: Activations, image: Array, target: Target) -> Array:
        """The response of one image, a scalar."""
        score = self.objective(activations, image, target)
        node = self.objective.highest_node(activations[self.pre], target)
        return self._joined(score, node)

    def every_map(self, activations: Activations) -> Array:
        """The responses of all maps to one image, ``[k]``."""
        nodes = activations[self.pre]
        scores = spatial_mean(activations[self.objective.layer])
        highest = jnp.max(nodes, axis=tuple(range(nodes.ndim - 1)))
        return self._joined(scores, highest)

    def _joined(self, score: Array, node: Array) -> Array:
        return jnp.where(score > self.floor, score, jnp.minimum(node, self.floor))


def spatial_mean(activation: Array) -> Array:
    """The mean of each map: ``[h, w, k]`` or ``[k]`` to ``[k]``."""
    return jnp.mean(activation, axis=tuple(range(activation.ndim - 1)))


def _pre_activation(objective: Map | Node, model: Model) -> PreActivation | None:
    layer = model.layer(objective.layer)
    if layer.pre is None or layer.floor is None:
        return None
    return PreActivation(objective, layer.pre, layer.floor)


def _checked_indices(targets: Target, shape: tuple[int, ...], unit: str) -> np.ndarray:
    """Integers ``[n]`` below ``shape[0]``, or ``[n, len(shape)]`` below ``shape``.

    Args:
        targets: as the user gives them.
        shape: of the layer, or the number of its maps alone.
        unit: what an index stands for, for messages.

    Raises:
        ValueError: the targets are not such integers.
    """
    array = np.asarray(targets)
    is_flat = len(shape) == 1
    expected = "[n]" if is_flat else f"[n, {len(shape)}]"
    has_shape = array.ndim == 1 if is_flat else array.shape[1:] == (len(shape),)
    if not np.issubdtype(array.dtype, np.integer) or not has_shape:
        raise ValueError(
            f"a {unit} is given by integers {expected}, got {array.dtype}{list(array.shape)}"
        )
    limits = np.array(shape[0] if is_flat else shape)
    is_bad = (array < 0) | (array >= limits)
    if is_bad.any():
        first = array[np.argwhere(is_bad)[0][0]]
        sizes = " x ".join(map(str, shape))
        raise ValueError(f"no {unit} {first}: there are {sizes}, counted from 0")
    return array.astype(np.int32)
