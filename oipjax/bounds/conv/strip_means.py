"""Scores of a first convolution behind its ReLU over a box of pixels, by strips of the image."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from oipjax.bounds.conv.chain import Stack, Stage
from oipjax.bounds.conv.shapes import pixel_range, unfit_box, unfit_numbers, unfit_relu
from oipjax.bounds.conv.strips import MAX_STATE_BITS, MAX_TABLE_BITS, mean_bound
from oipjax.bounds.interval.scores import computed_score
from oipjax.bounds.refinement import State
from oipjax.spaces import Box, Sphere


@dataclass(frozen=True)
class StripMeans:
    """Scores of a first convolution, nearly exact."""

    name: ClassVar[str] = "strips"
    level: ClassVar[str] = "tight"

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """Why the stack or the domain does not fit, or None."""
        if not isinstance(domain, Box):
            return "Strips are a bound over a box of pixels."
        reason = unfit_relu(stack, 1)
        if reason is not None:
            return reason
        (first,) = stack.stages
        kh, kw, channels, _ = first.kernel.shape
        if channels != 1:
            return f"Strips need an image of one channel, and this one has {channels}."
        if not (_fits_in_table(kh, kw) or _fits_in_table(kw, kh)):
            return (
                f"A kernel of {kh} x {kw} is too large for strips: they take at most "
                f"{MAX_TABLE_BITS} weights and a state of {MAX_STATE_BITS} pixels."
            )
        reason = unfit_numbers(stack.stages)
        return unfit_box(domain) if reason is None else reason

    def refine(self, state: State) -> State:
        """Lower scores where the strips are tighter."""
        (first,) = state.stack.stages
        report = state.report(self.name)
        report(0, 1)
        mean = mean_bound(*strip_problem(first, state.box))
        report(1, 1)
        score = computed_score(state, mean)
        return replace(state, bounds=state.bounds.with_scores(score, self.name))


def strip_problem(
    first: Stage, box: Box
) -> tuple[np.ndarray, np.ndarray, float, float, tuple[int, int]]:
    """The arguments of `strips.mean_bound` and `strips.mean_search` for a stage that fits."""
    low, high = pixel_range(box)
    return first.kernel, first.bias, float(low[0]), float(high[0]), first.image_size


def _fits_in_table(height: int, width: int) -> bool:
    """Whether horizontal strips take a kernel; a side of 1 counts as 2."""
    rows = max(height, 2)
    columns = max(width, 2)
    return rows * (columns - 1) <= MAX_STATE_BITS and rows * columns <= MAX_TABLE_BITS
