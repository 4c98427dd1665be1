"""What to climb: scores of one image, as values that can be added, scaled, compared and printed.

An objective is a frozen dataclass; *which* map, node or direction it means is not part of it but an
argument, the target. So all maps of a layer share one compiled program, and a batch may hold a
different target in every run. The split of objective, parameterisation and transform follows Lucid
(Olah, Mordvintsev, Schubert 2017, "Feature Visualization", doi:10.23915/distill.00007).

>>> from oipjax.objectives.units import Map, TotalVariation
>>> 2 * (Map("conv3") - 0.5 * TotalVariation())
2.0*Map(layer='conv3') - 1.0*TotalVariation()
"""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax.model import Activations, Model

Target = Any


@dataclass(frozen=True)
class Objective:
    """A pure function of ``(activations, image, target)``, the score of ONE image; bigger is better.

    Activations are those of one image: ``{layer: [h, w, k] or [k]}``; the image is ``[h, w, c]``.
    """

    takes_target: ClassVar[bool] = True

    def __call__(self, activations: Activations, image: Array, target: Target) -> Array:
        """The score, a float32 scalar."""
        raise NotImplementedError

    @property
    def channel_layer(self) -> str | None:
        """The layer of which the score needs one channel alone, that of its target; else None."""
        return None

    def pre_activation(self, model: Model) -> "PreActivation | None":
        """What to climb where the score has no gradient; None if that cannot be.

        A map or node behind a floor has one: its value before the nonlinearity.
        """
        del model
        return None

    def check(self, model: Model, targets: Target) -> Target:
        """Targets of ``n`` runs as the arrays the compiled program takes.

        Raises:
            ValueError: the model has no such layer, or a target is out of range; the message says
                what would fit.
        """
        raise NotImplementedError

    def __add__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((*_terms(self), *_terms(other)))

    def __mul__(self, factor: float) -> "Objective":
        if not isinstance(factor, Real):
            return NotImplemented
        return Sum(tuple((float(factor) * weight, term) for weight, term in _terms(self)))

    def __sub__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        return self + -1 * other

    def __neg__(self) -> "Objective":
        return -1 * self

    __rmul__ = __mul__


@dataclass(frozen=True, repr=False)
class Sum(Objective):
    """A weighted sum of objectives; made by ``+``, ``-`` and ``*``, which leave their operands as they are.

    Its target is a tuple with one entry for each term that takes a target, in order.
    """

    terms: tuple[tuple[float, Objective], ...]

    def __call__(self, activations, image, target):
        rest = iter(target)
        scores = [
            weight * term(activations, image, next(rest) if term.takes_target else None)
            for weight, term in self.terms
        ]
        return sum(scores[1:], start=scores[0])

    def check(self, model, targets):
        wanted = [term for _, term in self.terms if term.takes_target]
        for _, term in self.terms:
            if not term.takes_target:
                term.check(model, None)
        targets = () if targets is None and not wanted else targets
        if not isinstance(targets, tuple) or len(targets) != len(wanted):
            raise ValueError(
                f"{self} takes a tuple of {len(wanted)} targets, one for each of {wanted}, got {targets!r}"
            )
        checked = tuple(
            term.check(model, target) for term, target in zip(wanted, targets, strict=True)
        )
        if len({len(target) for target in checked}) > 1:
            raise ValueError(
                f"the targets of {self} have different lengths: {[len(target) for target in checked]}"
            )
        return checked

    def __repr__(self) -> str:
        text = ""
        for weight, term in self.terms:
            sign = " - " if weight < 0 else " + "
            text += (sign if text else "-" * (weight < 0)) + f"{abs(weight)}*{term}"
        return text


def _terms(objective: Objective) -> Iterator[tuple[float, Objective]]:
    yield from objective.terms if isinstance(objective, Sum) else ((1.0, objective),)


@dataclass(frozen=True)
class Map(Objective):
    """The mean over h, w of one map of ``layer``; the target is the map's index. *The* score of oipjax."""

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
        return _indices(targets, (layer.maps,), f"map of {layer.name}")


@dataclass(frozen=True)
class Node(Objective):
    """One node of ``layer``; the target is ``(i, j, map)``, or the index in a layer without space."""

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
        return _indices(targets, shape, f"node of {self.layer}")


@dataclass(frozen=True)
class Direction(Objective):
    """The mean over h, w of ``layer``'s activations along a direction; the target is a vector ``[k]``."""

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
    """The mean square of all of a layer's activations, as in deep dreams (Mordvintsev et al. 2015); takes no target."""

    layer: str
    takes_target: ClassVar[bool] = False

    def __call__(self, activations, image, target):
        return jnp.mean(jnp.square(activations[self.layer]))

    def check(self, model, targets):
        model.layer(self.layer)
        return _no_target(self, targets)


@dataclass(frozen=True)
class TotalVariation(Objective):
    """The mean absolute difference of neighbouring pixels, down and across; subtract it for smooth images."""

    takes_target: ClassVar[bool] = False

    def __call__(self, activations, image, target):
        return jnp.mean(jnp.abs(image[1:] - image[:-1])) + jnp.mean(
            jnp.abs(image[:, 1:] - image[:, :-1])
        )

    def check(self, model, targets):
        return _no_target(self, targets)


@dataclass(frozen=True)
class PreActivation:
    """`Map` or `Node`, continued below the floor: where it is silent, its (largest) value before the nonlinearity.

    A map behind a ReLU that is off has score 0 and no gradient, but its largest pre-activation node
    says how far from its floor it is, and has one. Since the mean of a ReLU is above its floor
    exactly where that node is, the two join into one `response` that never goes down as the image
    comes nearer to activating the map.

    Attributes:
        objective: what may be silent.
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
        return self._join(score, node)

    def every_map(self, activations: Activations) -> Array:
        """The responses of all maps to one image, ``[k]``."""
        nodes, scores = activations[self.pre], spatial_mean(activations[self.objective.layer])
        return self._join(scores, jnp.max(nodes, axis=tuple(range(nodes.ndim - 1))))

    def _join(self, score: Array, node: Array) -> Array:
        return jnp.where(score > self.floor, score, jnp.minimum(node, self.floor))


def _pre_activation(objective: Map | Node, model: Model) -> PreActivation | None:
    layer = model.layer(objective.layer)
    if layer.pre is None or layer.floor is None:
        return None
    return PreActivation(objective, layer.pre, layer.floor)


def spatial_mean(activation: Array) -> Array:
    """``[h, w, k]`` or ``[k]`` to ``[k]``."""
    return jnp.mean(activation, axis=tuple(range(activation.ndim - 1)))


def _indices(targets, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Integers ``[n]`` below ``shape[0]``, or ``[n, len(shape)]`` below ``shape``."""
    array = np.asarray(targets)
    tail = () if len(shape) == 1 else (len(shape),)
    if not np.issubdtype(array.dtype, np.integer) or not array.ndim or array.shape[1:] != tail:
        wanted = "[" + ", ".join(map(str, ("n", *tail))) + "]"
        raise ValueError(
            f"a {what} is given by integers {wanted}, got {array.dtype}{list(array.shape)}"
        )
    bad = (array < 0) | (array >= np.array(shape if tail else shape[0]))
    if bad.any():
        first = array[np.argwhere(bad)[0][0]]
        raise ValueError(
            f"no {what} {first}: there are {' x '.join(map(str, shape))}, counted from 0"
        )
    return array.astype(np.int32)


def _no_target(objective: Objective, targets):
    if targets is not None:
        raise ValueError(f"{objective} takes no target, got {targets!r}")
