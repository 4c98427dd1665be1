"""Scores of one image as values that can be added, scaled, compared and printed.

An objective is a frozen dataclass. The map, node or direction that it scores is not part of it but
an argument, the target. So all maps of a layer share one compiled program, and a batch may hold a
different target in every run. The split of objective, parameterisation and transform follows Lucid
(Olah, Mordvintsev, Schubert 2017, "Feature Visualization", doi:10.23915/distill.00007).

>>> from oipjax.objectives import Map, TotalVariation
>>> 2 * (Map("conv3") - 0.5 * TotalVariation())
2.0*Map(layer='conv3') - 1.0*TotalVariation()
"""

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from jax import Array

from oipjax.model import Activations, Model

if TYPE_CHECKING:
    from oipjax.objectives.units import PreActivation

Target = Any


@dataclass(frozen=True)
class Objective:
    """A pure function of ``(activations, image, target)``: the score of ONE image.

    A better image has a higher score. Activations are those of the one image:
    ``{layer: [h, w, k] or [k]}``; the image is ``[h, w, c]``.
    """

    takes_target: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any):
        """A subclass that scores in its own way inherits no shortcut; it may state its own."""
        super().__init_subclass__(**options)
        if "__call__" in cls.__dict__:
            for name in ("channel_layer", "pre_activation"):
                if name not in cls.__dict__:
                    setattr(cls, name, Objective.__dict__[name])

    def __call__(self, activations: Activations, image: Array, target: Target) -> Array:
        """The score, a float32 scalar."""
        raise NotImplementedError

    @property
    def channel_layer(self) -> str | None:
        """The layer of which the score needs one channel alone, that of its target; else None."""
        return None

    @property
    def weighted_terms(self) -> tuple[tuple[float, "Objective"], ...]:
        """The weighted sum that the objective is: ``(weight, term)`` for each of its terms."""
        return ((1.0, self),)

    def pre_activation(self, model: Model) -> "PreActivation | None":
        """The objective to climb where the score has no gradient; None if there is none.

        A map or node behind a floor has one: its value before the nonlinearity.
        """
        del model
        return None

    def check(self, model: Model, targets: Target) -> Target:
        """Targets of ``n`` runs as the arrays that the compiled program takes.

        Raises:
            ValueError: the model has no such layer, or a target is out of range; the message says
                what would fit.
        """
        raise NotImplementedError

    def __add__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum((*self.weighted_terms, *other.weighted_terms))

    def __mul__(self, factor: float) -> "Objective":
        if not isinstance(factor, Real):
            return NotImplemented
        scaled = [(float(factor) * weight, term) for weight, term in self.weighted_terms]
        return Sum(tuple(scaled))

    def __sub__(self, other: "Objective") -> "Objective":
        if not isinstance(other, Objective):
            return NotImplemented
        return self + -1 * other

    def __neg__(self) -> "Objective":
        return -1 * self

    __rmul__ = __mul__


@dataclass(frozen=True, repr=False)
class Sum(Objective):
    """A weighted sum of objectives; ``+``, ``-`` and ``*`` make it and leave their operands alone.

    Its target is a tuple with one entry for each term that takes a target, in order.
    """

    terms: tuple[tuple[float, Objective], ...]

    @property
    def weighted_terms(self):
        return self.terms

    def __call__(self, activations, image, target):
        remaining_targets = iter(target)
        scores = []
        for weight, term in self.terms:
            own_target = next(remaining_targets) if term.takes_target else None
            scores.append(weight * term(activations, image, own_target))
        return sum(scores[1:], start=scores[0])

    def check(self, model, targets):
        with_target = []
        for _, term in self.terms:
            if term.takes_target:
                with_target.append(term)
            else:
                term.check(model, None)
        if targets is None and not with_target:
            targets = ()
        if not isinstance(targets, tuple) or len(targets) != len(with_target):
            raise ValueError(
                f"{self} takes a tuple of {len(with_target)} targets, one for each of "
                f"{with_target}, got {targets!r}"
            )
        checked = []
        for term, target in zip(with_target, targets, strict=True):
            checked.append(term.check(model, target))
        lengths = [len(target) for target in checked]
        if len(set(lengths)) > 1:
            raise ValueError(f"the targets of {self} have different lengths: {lengths}")
        return tuple(checked)

    def __repr__(self) -> str:
        text = ""
        for weight, term in self.terms:
            if text:
                text += " - " if weight < 0 else " + "
            elif weight < 0:
                text += "-"
            text += f"{abs(weight)}*{term}"
        return text


def check_no_target(objective: Objective, targets: Target) -> None:
    """Raise a ValueError if targets are given for an objective that takes none."""
    if targets is not None:
        raise ValueError(f"{objective} takes no target, got {targets!r}")
