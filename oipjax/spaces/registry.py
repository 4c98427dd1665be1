"""Image spaces by name, and the space of a network unless told otherwise."""

from collections.abc import Callable

from oipjax.model import Model
from oipjax.spaces.base import Space, space_shapes
from oipjax.spaces.noise import Fluctuations, default_fluctuations
from oipjax.spaces.pixels import Box, Standardised

SPACES: dict[str, Callable[[Model, Fluctuations], Standardised | Box]] = {
    "standardised": Standardised.of,
    "box": Box.of,
}
"""The space of a network, of its name: one line per space."""


def space_for(
    model: Model, name: str = "standardised", starts: Fluctuations | None = None
) -> Standardised | Box:
    """The image space of a network by name.

    Args:
        model: gives shape and box.
        name: one of `SPACES`.
        starts: recipes; `default_fluctuations` unless given.

    Raises:
        ValueError: there is no such space.
    """
    if name not in SPACES:
        raise ValueError(f"unknown image space {name!r}; there are {', '.join(SPACES)}")
    if starts is None:
        starts = default_fluctuations(model.input_shape)
    return SPACES[name](model, starts)


def checked_space(model: Model, space: Space | None) -> Space:
    """``space``, or the default one if it is None.

    Raises:
        ValueError: the network takes images of another shape than the space makes.
    """
    if space is None:
        return space_for(model)
    _, shape = space_shapes(space)
    if shape != model.input_shape:
        raise ValueError(
            f"{model.name} takes images {model.input_shape}, {type(space).__name__} makes {shape}"
        )
    return space
