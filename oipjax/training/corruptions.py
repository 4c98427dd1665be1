"""Corruptions of images: noise, lost pixels, or grey instead of colours.

Each corruption is a frozen dataclass, equal by value, that is called as ``corrupt(key, pixels[n, h,
w, c]) -> pixels`` with pixels in [0, 1]; it is a value for `AutoencoderTrainConfig.corrupt`. An
autoencoder trained with it reconstructs the original image (denoising autoencoders: P. Vincent and
others 2008, doi:10.1145/1390156.1390294).

>>> parse(("noise:0.5", "dropped:0.25"))
Chain(parts=(Noise(sigma=0.5, clip=True), Dropped(share=0.25)))
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Corruption = Callable[[Array, Array], Array]
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601, as JPEG and Pillow have it."""
_BATCH = 500


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, independent for every pixel and channel.

    Attributes:
        sigma: standard deviation; pixels reach from 0 to 1.
        clip: clip the result to [0, 1], as an image file would. On a black background that halves
            the squared error.
    """

    sigma: float
    clip: bool = True

    def __post_init__(self):
        if not 0 < self.sigma < float("inf"):
            raise ValueError(
                "the noise's sigma, in units of the pixels' range, must be above 0, "
                f"got {self.sigma:g}"
            )

    def __call__(self, key: Array, pixels: Array) -> Array:
        """The noisy pixels."""
        noisy = pixels + self.sigma * jax.random.normal(key, pixels.shape, pixels.dtype)
        return jnp.clip(noisy, 0, 1) if self.clip else noisy


@dataclass(frozen=True)
class Dropped:
    """Lost pixels, which are black in all channels; the network is not told which ones.

    Attributes:
        share: probability of each pixel to be lost.
    """

    share: float

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise ValueError(
                f"the share of dropped pixels must lie between 0 and 1, got {self.share:g}"
            )

    def __call__(self, key: Array, pixels: Array) -> Array:
        """The remaining pixels."""
        shape = (*pixels.shape[:-1], 1)
        is_kept = jax.random.bernoulli(key, 1 - self.share, shape)
        return pixels * is_kept.astype(pixels.dtype)


@dataclass(frozen=True)
class Grey:
    """Luma instead of colours, in all three channels.

    It is rounded to the 256 levels of a grey image file.
    """

    def __call__(self, key: Array, pixels: Array) -> Array:
        """The grey pixels; the key is not used."""
        del key
        shape = pixels.shape
        if shape[-1] != 3:
            raise ValueError(f"only images of 3 channels can be made grey, got {list(shape)}")
        weights = jnp.array(LUMA, pixels.dtype).reshape(1, 1, 1, 3)
        luma = (pixels * weights).sum(-1, keepdims=True)
        levels = jnp.round(luma * 255)
        return jnp.broadcast_to(levels / 255, shape)


@dataclass(frozen=True)
class Chain:
    """Corruptions one after another, the first one first."""

    parts: tuple[Corruption, ...]

    def __call__(self, key: Array, pixels: Array) -> Array:
        """Part ``i`` gets ``fold_in(key, i)``."""
        for number, part in enumerate(self.parts):
            pixels = part(jax.random.fold_in(key, number), pixels)
        return pixels


@dataclass(frozen=True)
class OneOf:
    """One of several corruptions for every image, all equally likely."""

    parts: tuple[Corruption, ...]

    def __call__(self, key: Array, pixels: Array) -> Array:
        """Part ``i`` gets ``fold_in(key, i)``; the choice gets the number after the last part's."""
        corrupted = []
        for number, part in enumerate(self.parts):
            corrupted.append(part(jax.random.fold_in(key, number), pixels))
        count = len(self.parts)
        chosen = jax.random.randint(jax.random.fold_in(key, count), pixels.shape[:1], 0, count)
        return jnp.take_along_axis(jnp.stack(corrupted), chosen.reshape(1, -1, 1, 1, 1), 0)[0]


def parse(texts: Sequence[str]) -> Corruption | None:
    """Read corruptions: ``noise:SIGMA``, ``dropped:SHARE`` or ``grey``; several are a `Chain`.

    Raises:
        ValueError: a text has another form, or its number is out of range.
    """
    parts = tuple(map(_parse_one, texts))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else Chain(parts)


def _parse_one(text: str) -> Corruption:
    name, colon, number = text.partition(":")
    try:
        value = float(number) if colon else None
    except ValueError:
        value = None
    if name == "grey" and not colon:
        return Grey()
    if name in ("noise", "dropped") and value is not None:
        return Noise(value) if name == "noise" else Dropped(value)
    raise ValueError(
        f"cannot read the corruption {text!r}; "
        "expected noise:SIGMA like noise:0.5, dropped:0.3, or grey"
    )


def each(corrupt: Corruption, key: Array, numbers: Array, pixels: Array) -> Array:
    """Corrupt images ``[n, h, w, c]`` one by one, number ``i`` with ``fold_in(key, i)``.

    The result does not depend on how images are put into batches.
    """

    def one(number: Array, image: Array) -> Array:
        return corrupt(jax.random.fold_in(key, number), image[None])[0]

    return jax.vmap(one)(numbers, pixels)


def corrupted(corrupt: Corruption, key: Array, images: np.ndarray) -> np.ndarray:
    """All images ``[n, h, w, c]``, corrupted by `each`: ``float32`` of ``uint8`` or of [0, 1]."""
    out = np.empty(images.shape, np.float32)
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        white = 255 if batch.dtype == np.uint8 else 1
        pixels = batch.astype(np.float32) / np.float32(white)
        numbers = np.arange(first, first + len(batch), dtype=np.uint32)
        out[first : first + _BATCH] = _each(corrupt, key, numbers, pixels)
    return out


@functools.partial(jax.jit, static_argnums=0)
def _each(corrupt, key, numbers, pixels):
    return each(corrupt, key, numbers, pixels)
