"""Which images are allowed, and how they are parameterised."""

from oipjax.spaces.base import Domain, Space, Sphere, accepts_images, space_shapes
from oipjax.spaces.decoder import Decoder, decoder_space
from oipjax.spaces.noise import Fluctuation, Fluctuations, default_fluctuations, standardise
from oipjax.spaces.pixels import Box, Standardised
from oipjax.spaces.registry import SPACES, checked_space, space_for

__all__ = [
    "SPACES",
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
