"""Scores of the image itself, to be subtracted from what is climbed."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from oipjax.objectives.base import Objective, check_no_target


@dataclass(frozen=True)
class TotalVariation(Objective):
    """The mean absolute difference of neighbouring pixels, down and across.

    Subtract it for smooth images. It takes no target.
    """

    takes_target: ClassVar[bool] = False

    def __call__(self, activations, image, target):
        down = jnp.mean(jnp.abs(image[1:] - image[:-1]))
        across = jnp.mean(jnp.abs(image[:, 1:] - image[:, :-1]))
        return down + across

    def check(self, model, targets):
        return check_no_target(self, targets)
