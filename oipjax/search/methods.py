"""How to climb: an optax transformation gives the direction, a schedule the length of each step.

`Momentum` is the default. Each of its parts is measured in ``experiments/benchmarks/methods.py``:

- the gradient over its root mean square, as in the `Classic` rule, but without the part that the
  projection would undo (see ``Space.tangent``), and with momentum (Polyak 1964,
  doi:10.1016/0041-5553(64)90137-5);
- long steps that end at 0 along a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983): maps have
  many local maxima, and long steps pass over the poor ones;
- a warm-up: the survey's start lies in a good basin, and a long first step would throw it out;
- backtracking: a run that loses more than a share of its best score goes back to its best image,
  forgets its momentum and takes shorter steps from then on (in the spirit of O'Donoghue and Candes
  2015, arXiv:1204.3982). It matters in a box, where a long step can end in a corner; on the sphere
  of standardised images it hardly ever acts.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax.numpy as jnp
import optax


class Method(Protocol):
    """A rule of steps: a frozen dataclass, hashable and equal by value.

    Attributes:
        tangent: whether `direction` gets only that part of the gradient that the space's projection
            lets through.
        climbs_pre_activation: whether the pre-activation is climbed while a map is inactive.
        restarts: whether a second ascent from the end of the first one gets further. If so, a short
            ascent may choose among starts.
    """

    tangent: ClassVar[bool]
    climbs_pre_activation: ClassVar[bool]
    restarts: ClassVar[bool]

    def direction(self) -> optax.GradientTransformation:
        """From the gradient, which points uphill, to the direction of the step.

        Each run has a state of its own.
        """
        ...

    def step_size(self) -> optax.Schedule:
        """From the share of the updates that are done to the length of the step.

        Lengths are in units of the space's scale.
        """
        ...

    def backtracking(self) -> tuple[float, float] | None:
        """``(tolerance, shrink)``, or None if a run never goes back.

        A run that loses more than the share ``tolerance`` of its best score goes back to its best
        image, and all its further steps are shortened by the factor ``shrink``.
        """
        ...


@dataclass(frozen=True)
class Classic:
    """The reference rule of the source series.

    A fixed step along the gradient over its root mean square.

    Attributes:
        step: length of a step, per pixel, in units of the space's scale.
    """

    step: float = 0.01
    tangent: ClassVar[bool] = False
    climbs_pre_activation: ClassVar[bool] = False
    restarts: ClassVar[bool] = False

    def direction(self) -> optax.GradientTransformation:
        """See `Method`."""
        return normalise_rms(1e-7)

    def step_size(self) -> optax.Schedule:
        """See `Method`."""
        return optax.constant_schedule(self.step)

    def backtracking(self) -> None:
        """Never."""


@dataclass(frozen=True)
class Momentum:
    """Long normalised steps with momentum, warm-up, cosine decay and backtracking.

    The module's docstring gives the reasons.

    Attributes:
        step: length of the longest step, per pixel, in units of the space's scale.
        momentum: share of the last direction that is kept.
        warmup: share of the updates over which the step grows to its full length.
        tolerance: share of its best score that a run may lose before it goes back; inf: it never
            goes back.
        shrink: factor on all further steps of a run that went back.
    """

    step: float = 1.0
    momentum: float = 0.5
    warmup: float = 0.2
    tolerance: float = 0.5
    shrink: float = 0.7
    tangent: ClassVar[bool] = True
    climbs_pre_activation: ClassVar[bool] = True
    restarts: ClassVar[bool] = True

    def direction(self) -> optax.GradientTransformation:
        """See `Method`."""
        return optax.chain(normalise_rms(), optax.trace(self.momentum))

    def step_size(self) -> optax.Schedule:
        """See `Method`."""
        if not self.warmup:
            return optax.cosine_decay_schedule(self.step, 1)
        return optax.warmup_cosine_decay_schedule(
            init_value=0.05 * self.step,
            peak_value=self.step,
            warmup_steps=self.warmup,  # pyright: ignore[reportArgumentType]
            decay_steps=1,
        )

    def backtracking(self) -> tuple[float, float] | None:
        """See `Method`."""
        if not math.isfinite(self.tolerance):
            return None
        return self.tolerance, self.shrink


METHODS: dict[str, type[Momentum] | type[Classic]] = {"momentum": Momentum, "classic": Classic}
"""The methods by name."""


def normalise_rms(epsilon: float = 1e-30) -> optax.GradientTransformation:
    """Divide a gradient by its root mean square plus ``epsilon``."""

    def update(updates, state, params=None):
        del params
        root_mean_square = jnp.sqrt(jnp.mean(jnp.square(updates)))
        return updates / (root_mean_square + epsilon), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
