"""Scores of a second convolution behind its ReLU over a box of pixels, by the windows it sees."""

from dataclasses import dataclass, replace
from typing import ClassVar

from oipjax.bounds.conv.chain import Stack
from oipjax.bounds.conv.shapes import pixel_range, unfit_numbers, unfit_patch, unfit_relu
from oipjax.bounds.conv.windows import MAX_TAPS, window_bound
from oipjax.bounds.interval.scores import computed_score
from oipjax.bounds.refinement import State
from oipjax.spaces import Box, Sphere


@dataclass(frozen=True)
class WindowMeans:
    """Scores of a second convolution, with all positions of a map bounded together."""

    name: ClassVar[str] = "windows"
    level: ClassVar[str] = "tight"

    def fits(self, stack: Stack, domain: Box | Sphere) -> str | None:
        """Why the stack or the domain does not fit, or None."""
        if not isinstance(domain, Box):
            return "Windows are a bound over a box of pixels."
        reason = unfit_relu(stack, 2)
        if reason is not None:
            return reason
        first, second = stack.stages
        kh, kw = second.kernel.shape[:2]
        if kh * kw > MAX_TAPS:
            return f"A second kernel of {kh} x {kw} has more than {MAX_TAPS} taps."
        reason = unfit_numbers(stack.stages)
        return unfit_patch(first, domain) if reason is None else reason

    def refine(self, state: State) -> State:
        """Lower scores where the windows are tighter."""
        first, second = state.stack.stages
        low, high = pixel_range(state.box)
        mean = window_bound(
            first.kernel,
            first.bias,
            first.pool,
            second.kernel,
            second.bias,
            low,
            high,
            first.image_size,
            progress=state.report(self.name),
        )
        score = computed_score(state, mean)
        return replace(state, bounds=state.bounds.with_scores(score, self.name))
