"""Oipjax itself, which answers the same requests as its peers.

Settings are ``ascend, SPACE``: one random start per target, default method and tile; and ``atlas,
SPACE, name=value,...``: the whole job for the maps among the targets, best of ``keep``. The job
returns the best image of each map.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from protocol import Network, serve

import oipjax


class Own:
    """A `protocol.Worker`.

    Args:
        network: as exported; the shipped network has the same parameters and is loaded instead.
    """

    def __init__(self, network: Network):
        del network
        self.model = oipjax.load("mnist-cnn")

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {"oipjax": oipjax.__version__, "jax": jax.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        activations = self.model.apply(self.model.params, jnp.asarray(images))
        return np.asarray(activations["conv3"])

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """See `protocol.Worker`; ``steps`` of an atlas are those of its setting, or the default."""
        kind, name, *pairs = setting.split(", ")
        key = jax.random.key(seed)
        space = oipjax.space_for(self.model, name)
        if kind == "ascend":
            starts = np.arange(len(targets))
            objective = oipjax.Map("conv3")
            ascent = oipjax.ascend(
                key, self.model, objective, targets, starts, space=space, steps=steps
            )
            return ascent.images
        options: dict[str, Any] = {}
        for pair in pairs:
            option, value = pair.split("=")
            options[option] = int(value) if value.isdigit() else value
        maps = tuple(dict.fromkeys(targets))
        atlas = oipjax.atlas(key, self.model, "conv3", maps=maps, space=space, **options)
        return atlas.images[:, 0]


serve(Own)
