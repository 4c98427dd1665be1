"""Which images are allowed, and how they are parameterised."""

from oipjax.spaces.decoder import Decoder, decoder_space
from oipjax.spaces.pixels import (
    Box,
    Domain,
    Fluctuation,
    Fluctuations,
    Space,
    Sphere,
    Standardised,
    accepts_images,
    checked_space,
    default_fluctuations,
    space_for,
    space_shapes,
    standardise,
)

__all__ = [
    "Box",
    "Decoder",
    "Domain",
    "Fluctuation",
    "Fluctuations",
    "Space",
    "Sphere",
    "Standardised",
    "accepts_images",
    "checked_space",
    "decoder_space",
    "default_fluctuations",
    "space_for",
    "space_shapes",
    "standardise",
]
