"""What several commands share: where things go, and how texts on the command line become values."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax
import numpy as np

from oipjax.model import Model
from oipjax.runtime import OPTIONS, cores, products
from oipjax.spaces import Fluctuation, Fluctuations, Space, space_for

if TYPE_CHECKING:
    from oipjax.spaces import Decoder

OUT = Path("oipjax-out")
Formats = Literal["png", "pdf", "svg"]
Spaces = Literal["standardised", "box", "decoder"]
AUTOENCODER = "mnist-autoencoder"
"""The autoencoder that the package ships with."""


def use_cores() -> None:
    """Give each core of a CPU, up to four, a device of its own, so that trainings share each batch among them.

    To be called before JAX computes anything; later, or where somebody has chosen their number, it
    does nothing.
    """
    forced = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or getattr(jax.config, "jax_num_cpu_devices", 0) > 0:
        return
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(cores(), 4))


def key_of(seed: int) -> jax.Array:
    """The root key of ``--seed``."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be between 0 and {2**32 - 1}, got {seed}")
    return jax.random.key(np.uint32(seed))


def indices(text: str, count: int) -> tuple[int, ...] | None:
    """``all``, or ``0,5,120-127``; of a range no more than ``count`` numbers and one that is too large."""
    if text.strip() == "all":
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(
                f"--maps takes all, or indices and ranges such as 0,5,120-127, got {text!r}"
            )
        begin = min(int(first), 2**31 - 1)
        end = min(int(last or first), max(count, begin))
        numbers += range(begin, end + 1)
    if not numbers:
        raise ValueError(f"--maps {text!r} names no map")
    return tuple(dict.fromkeys(numbers))


def recipes(texts: tuple[str, ...]) -> Fluctuations | None:
    """Fluctuations as ``--recipe`` writes them; None if nothing was given."""
    return Fluctuations(tuple(Fluctuation.parse(text) for text in texts)) if texts else None


def space_of(
    model: Model, space: str, recipe: tuple[str, ...] = (), autoencoder: str = AUTOENCODER
) -> Space:
    """The image space of ``--space``, ``--recipe`` and ``--autoencoder``."""
    if space != "decoder":
        return space_for(model, space, recipes(recipe))
    if recipe:
        raise ValueError(
            "--recipe mixes random fields, which --space decoder does not start from; leave it out"
        )
    return load_decoder(model, autoencoder)


def load_decoder(model: Model, autoencoder: str = AUTOENCODER) -> Decoder:
    """The image space of a trained autoencoder; its starts are like the codes of the digits that ship with oipjax."""
    from oipjax.data import mnist as data
    from oipjax.networks import checkpoint
    from oipjax.spaces import decoder_space

    network = checkpoint.load_autoencoder(autoencoder)
    digits = data.sample().images
    for taker, shape in (
        (model.name, model.input_shape),
        ("the sample of digits", digits.shape[1:]),
    ):
        if network.config.input_shape != shape:
            made = network.config.input_shape
            raise ValueError(
                f"--autoencoder {autoencoder} makes images {made}, expected {shape} as {taker} has them"
            )
    with products():  # the codes are part of what the space is
        codes = np.asarray(
            jax.jit(network.encode, compiler_options=OPTIONS)(network.params, digits)
        )
    return decoder_space(
        model, network.name, network.decode, {"decoder": network.params["decoder"]}, codes
    )
