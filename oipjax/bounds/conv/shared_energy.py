"""Limits of a second convolution over standardised images, whose patches share one energy."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from oipjax.bounds.conv.chain import Stack
from oipjax.bounds.conv.shapes import unfit_numbers
from oipjax.bounds.conv.sphere import MOST_PIXELS, energy_bound
from oipjax.bounds.refinement import State
from oipjax.spaces import Box, Sphere


@dataclass(frozen=True)
class SharedEnergy:
    """Upper limits of the nodes of the second convolution; all later layers profit."""

    name: ClassVar[str] = "energy"
    level: ClassVar[str] = "tight"

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """Why the stack or the domain does not fit, or None."""
        if not isinstance(domain, Sphere):
            return "The shared energy is a bound over standardised images."
        if len(stack.longest) < 2:
            return "The shared energy needs two convolutions in a row from the image."
        first, second = stack.longest[:2]
        kh, kw, channels, _ = first.kernel.shape
        height = second.kernel.shape[0] * first.pool + kh - 1
        width = second.kernel.shape[1] * first.pool + kw - 1
        pixels = height * width * channels
        if pixels > MOST_PIXELS:
            return (
                f"A window of {height} x {width} x {channels} has {pixels} pixels, more than "
                f"{MOST_PIXELS}."
            )
        return unfit_numbers((first, second))

    def refine(self, state: State) -> State:
        """Limit the nodes of the second convolution from above."""
        first, second = state.stack.longest[:2]
        high = energy_bound(first, second, state.sphere)
        low = np.full_like(high, -np.inf)
        return state.with_limits({second.layer: (low, high)}, self.name)
