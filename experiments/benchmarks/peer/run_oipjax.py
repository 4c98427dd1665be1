"""Oipjax itself, asked in the same way as its peers.

Settings are ``ascend, SPACE``: one random start per target, default method and tile; and ``atlas,
SPACE, name=value,...``: the whole job for the maps among the targets, best of ``keep``, whose best
image of each map is returned.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from protocol import serve

import oipjax


class Own:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        del network  # the same parameters as shipped
        self.model = oipjax.load("mnist-cnn")

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {"oipjax": oipjax.__version__, "jax": jax.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return np.asarray(self.model.apply(self.model.params, jnp.asarray(images))["conv3"])

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """As `protocol.Worker`; an atlas with 0 steps takes as many as it does by default."""
        kind, name, *rest = setting.split(", ")
        key, space = jax.random.key(seed), oipjax.space_for(self.model, name)
        if kind == "ascend":
            starts = np.arange(len(targets))
            objective = oipjax.Map("conv3")
            return oipjax.ascend(
                key, self.model, objective, targets, starts, space=space, steps=steps
            ).images
        pairs = (pair.split("=") for pair in rest)
        options: dict[str, Any] = {
            word: int(value) if value.isdigit() else value for word, value in pairs
        }
        maps = tuple(dict.fromkeys(targets))
        return oipjax.atlas(key, self.model, "conv3", maps=maps, space=space, **options).images[
            :, 0
        ]


serve(Own)
