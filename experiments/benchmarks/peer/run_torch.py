"""A plain torch loop of the classic rule, as one would write it.

The gradient over its root mean square, a step of 0.01, and every image brought back to mean 0 and
standard deviation 1. It starts from coarse random fields, without a search for good ones.
``documented`` climbs one map after another, the other settings climb a batch, in one of torch's two
memory layouts.
"""

# pyright: reportMissingImports=false

import numpy as np
import torch
import torch_network
from protocol import serve

STEP, EPSILON = 0.01, 1e-7


class Loop:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        self.network = network
        self.size = network["check_images"].shape[1]
        self.models = {
            name: torch.nn.Sequential(*torch_network.up_to_conv3(network).values()).to(
                memory_format=layout
            )
            for name, layout in (
                ("contiguous", torch.contiguous_format),
                ("channels last", torch.channels_last),
            )
        }

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {"torch": torch.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return torch_network.conv3(self.network, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """As `protocol.Worker`."""
        torch.manual_seed(seed)
        model = self.models["contiguous" if setting == "documented" else setting]
        groups = [[target] for target in targets] if setting == "documented" else [targets]
        return np.concatenate([self._climb(model, group, steps) for group in groups])

    def _climb(self, model, targets: list[int], steps: int) -> np.ndarray:
        count, maps = torch.arange(len(targets)), torch.tensor(targets)
        fields = [
            torch.nn.functional.interpolate(
                torch.randn(len(targets), 1, side, side), self.size, mode="bicubic"
            )
            for side in (3, 7)
        ]
        x = _standardise(sum(_standardise(field) for field in fields))
        for _ in range(steps):
            x.requires_grad_(True)
            score = model(x)[count, maps].mean((1, 2)).sum()
            (gradient,) = torch.autograd.grad(score, x)
            size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt() + EPSILON
            x = _standardise(x.detach() + STEP * gradient / size)
        return x.numpy().transpose(0, 2, 3, 1)


def _standardise(x):
    x = x - x.mean((1, 2, 3), keepdim=True)
    return x / x.square().mean((1, 2, 3), keepdim=True).sqrt()


serve(Loop)
