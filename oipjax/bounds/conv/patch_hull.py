"""Limits of a second convolution over a box of pixels, by the joint patch hull."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from oipjax.bounds.conv.chain import Stack
from oipjax.bounds.conv.hull import hull_bound
from oipjax.bounds.conv.patches import Cells, cells
from oipjax.bounds.conv.shapes import pixel_range, unfit_numbers, unfit_patch
from oipjax.bounds.interval.enclosures import intervals
from oipjax.bounds.interval.scores import highest_nodes, lowest_nodes
from oipjax.bounds.refinement import State
from oipjax.spaces import Box, Sphere


@dataclass(frozen=True)
class PatchHull:
    """Limits of the nodes of the second convolution; all later layers profit.

    Attributes:
        splits: how often a patch's box is cut in two, see `hull_bound`.
        steps: of the search for multipliers.
        lower: whether nodes are bounded from below, too. It hardly ever matters after a ReLU.
    """

    splits: int = 4
    steps: int = 200
    lower: bool = True

    name: ClassVar[str] = "hull"
    level: ClassVar[str] = "tight"

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """Why the stack or the domain does not fit, or None."""
        if not isinstance(domain, Box):
            return "The patch hull is a bound over a box of pixels."
        if len(stack.longest) < 2:
            return "The patch hull needs two convolutions in a row from the image."
        first, second = stack.longest[:2]
        reason = unfit_numbers((first, second))
        return unfit_patch(first, domain) if reason is None else reason

    def refine(self, state: State) -> State:
        """Limit the nodes of the second convolution from both sides."""
        first, second = state.stack.longest[:2]
        ends = intervals(state.model, state.domain, layers=(second.layer,))[second.layer]
        patches = cells(first.kernel, first.bias, first.pool, *pixel_range(state.box))
        weights = np.moveaxis(second.kernel, 3, 0)
        above = self._hull(patches, weights, self.splits, state.report(self.name))
        high = np.minimum(second.bias + above, highest_nodes(ends))
        low = lowest_nodes(ends)
        if self.lower:
            below = self._hull(patches, -weights, max(self.splits - 2, 0), None)
            low = np.maximum(second.bias - below, low)
        return state.with_limits({second.layer: (low, high)}, self.name)

    def _hull(
        self,
        patches: Cells,
        weights: np.ndarray,
        splits: int,
        progress: Callable[[int, int], None] | None,
    ) -> np.ndarray:
        upper, _ = hull_bound(patches, weights, steps=self.steps, splits=splits, progress=progress)
        return upper
