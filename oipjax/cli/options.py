"""What several commands share: groups of options, and how typed texts become values."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from oipjax.cli.flags import Typed, registry
from oipjax.model import Model
from oipjax.runtime import OPTIONS, cores, products
from oipjax.search import METHODS, Method
from oipjax.spaces import Fluctuation, Fluctuations, Space, space_for

if TYPE_CHECKING:
    from oipjax.spaces import Decoder

OUT = Path("oipjax-out")
AUTOENCODER = "mnist-autoencoder"
"""The autoencoder that the package ships with."""


def _name_of(method: Method) -> str:
    return next(name for name, kind in METHODS.items() if isinstance(method, kind))


def _read_corruptions(texts: tuple[str, ...]) -> Any:
    from oipjax.training import parse

    return parse(texts)


TYPED = {
    "AscentConfig.method": Typed(
        type=Literal[tuple(METHODS)],  # pyright: ignore[reportInvalidTypeForm]
        show=_name_of,
        read=lambda name: METHODS[name](),
    ),
    "AutoencoderTrainConfig.corrupt": Typed(
        type=tuple[str, ...],
        show=lambda corrupt: (),
        read=_read_corruptions,
    ),
}
"""Fields of configurations that are typed in another form than in Python."""

HIDDEN = (
    "AtlasConfig.exemplars",
    "AtlasConfig.maps",
    "AscentConfig.record_images",
    "AscentConfig.space",
    "CNNConfig.input_shape",
    "CNNConfig.classes",
    "AutoencoderConfig.input_shape",
)
"""Fields of configurations that have no flag: the commands set them from other options or data."""

RULES = registry(TYPED, HIDDEN)


@dataclass(frozen=True)
class Output:
    """Where the results go.

    Attributes:
        format: file formats of the picture, one or more.
        out: folder of the results. ``auto``: a folder of oipjax-out that is named like the network
            and what was looked for.
        overwrite: replace the results of another run in that folder.
    """

    format: tuple[Literal["png", "pdf", "svg"], ...] = ("png",)
    out: Literal["auto"] | Path = "auto"
    overwrite: bool = False

    def folder(self, name: str) -> Path:
        """The folder, if ``auto`` stands for ``name``."""
        return OUT / name if self.out == "auto" else Path(self.out)

    def pictures(self, name: str) -> list[str]:
        """File names of a picture."""
        return [f"{name}.{ending}" for ending in self.format]


@dataclass(frozen=True)
class SpaceOptions:
    """Which images are searched.

    Attributes:
        space: the image space: standardised images (mean 0, standard deviation 1), the box of valid
            pixels, or images that a decoder makes.
        autoencoder: for --space decoder: the autoencoder of the decoder, a checkpoint folder or one
            that ships with oipjax. Its latent vectors stay near those of digits.
        recipe: mixtures of random fields to start from, as size:weight,... and ~blur, for example
            3:0.2,7:0.2~1.
    """

    space: Literal["standardised", "box", "decoder"] = "standardised"
    autoencoder: str = AUTOENCODER
    recipe: tuple[str, ...] = ()

    def of(self, model: Model) -> Space:
        """The image space for a network."""
        if self.space == "decoder":
            if self.recipe:
                raise ValueError(
                    "--recipe mixes random fields, which --space decoder does not start from; "
                    "leave it out"
                )
            return load_decoder(model, self.autoencoder)
        fields = tuple(Fluctuation.parse(text) for text in self.recipe)
        return space_for(model, self.space, Fluctuations(fields) if fields else None)


def use_cores() -> None:
    """Give each core of a CPU, up to four, a device of its own, so that trainings share each batch.

    It must be called before JAX computes anything. Later, or if somebody has chosen the number of
    devices, it does nothing.
    """
    is_forced = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if is_forced or jax.config.jax_num_cpu_devices > 0:  # pyright: ignore[reportAttributeAccessIssue]
        return
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(cores(), 4))


def key_of(seed: int) -> jax.Array:
    """The root key of ``--seed``."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be between 0 and {2**32 - 1}, got {seed}")
    return jax.random.key(np.uint32(seed))


def layer_name(model: Model, layer: str) -> str:
    """The layer of ``--layer``; ``auto`` is the network's default layer."""
    return model.layer(model.default_layer if layer == "auto" else layer).name


def indices(text: str, count: int) -> tuple[int, ...] | Literal["all"]:
    """The maps of ``--maps``: ``all``, or ``0,5,120-127``.

    Args:
        text: as it was typed.
        count: how many maps there are. A range is cut off behind the first index that is too large.
    """
    if text.strip() == "all":
        return "all"
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


def load_decoder(model: Model, autoencoder: str = AUTOENCODER) -> Decoder:
    """The image space of a trained autoencoder.

    Its starts are distributed like the codes of the digits that ship with oipjax.

    Raises:
        ValueError: there is no such autoencoder, or its images are not those of the network.
    """
    from oipjax.data import mnist
    from oipjax.networks import checkpoint
    from oipjax.spaces import decoder_space

    network = checkpoint.load_autoencoder(autoencoder)
    digits = mnist.sample().images
    shape = network.config.input_shape
    expected = {model.name: model.input_shape, "the sample of digits": digits.shape[1:]}
    for name, other in expected.items():
        if shape != other:
            raise ValueError(
                f"--autoencoder {autoencoder} makes images {shape}, expected {other} as {name} "
                "has them"
            )
    encode = jax.jit(network.encode, compiler_options=OPTIONS)
    with products():  # The codes belong to what decides the space, so their precision is fixed.
        codes = np.asarray(encode(network.params, digits))
    params = {"decoder": network.params["decoder"]}
    return decoder_space(model, network.name, network.decode, params, codes)
