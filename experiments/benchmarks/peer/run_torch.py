"""A plain torch loop of the classic rule, as one would write it.

A step is 0.01 times the gradient over its root mean square, and after it every image is brought
back to mean 0 and standard deviation 1. The loop starts from coarse random fields, without a search
for good ones. ``documented`` climbs one map after another. The other settings climb a batch, in one
of torch's two memory layouts.
"""

# pyright: reportMissingImports=false

import numpy as np
import torch
import torch_network
from protocol import Network, serve

STEP = 0.01
EPSILON = 1e-7
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
FIELDS = (3, 7)
"""The sides of the random fields that a start is made of, before they are enlarged."""


class Loop:
    """A `protocol.Worker`.

    Args:
        network: as exported.
    """

    def __init__(self, network: Network):
        self.network = network
        self.size = network["check_images"].shape[1]
        self.models = {}
        for name, layout in LAYOUTS.items():
            model = torch.nn.Sequential(*torch_network.up_to_conv3(network).values())
            self.models[name] = model.to(memory_format=layout)

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {"torch": torch.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        return torch_network.conv3(self.network, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """See `protocol.Worker`."""
        torch.manual_seed(seed)
        if setting == "documented":
            model = self.models["contiguous"]
            groups = [[target] for target in targets]
        else:
            model = self.models[setting]
            groups = [targets]
        return np.concatenate([self._climb(model, group, steps) for group in groups])

    def _climb(self, model, targets: list[int], steps: int) -> np.ndarray:
        numbers = torch.arange(len(targets))
        maps = torch.tensor(targets)
        x = self._starts(len(targets))
        for _ in range(steps):
            x.requires_grad_(True)
            score = model(x)[numbers, maps].mean((1, 2)).sum()
            (gradient,) = torch.autograd.grad(score, x)
            size = _root_mean_square(gradient) + EPSILON
            x = _standardise(x.detach() + STEP * gradient / size)
        return x.numpy().transpose(0, 2, 3, 1)

    def _starts(self, count: int):
        """Random images ``[n, 1, h, w]``: a sum of coarse fields, standardised."""
        fields = []
        for side in FIELDS:
            coarse = torch.randn(count, 1, side, side)
            field = torch.nn.functional.interpolate(coarse, self.size, mode="bicubic")
            fields.append(_standardise(field))
        return _standardise(sum(fields))


def _standardise(x):
    x = x - x.mean((1, 2, 3), keepdim=True)
    return x / _root_mean_square(x)


def _root_mean_square(x):
    """Of each image, ``[n, 1, 1, 1]``."""
    return x.square().mean((1, 2, 3), keepdim=True).sqrt()


serve(Loop)
