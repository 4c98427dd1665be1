"""The exported network in torch."""

# pyright: reportMissingImports=false

import numpy as np
import torch
from protocol import CONVOLUTIONS, DENSE


class Normalise(torch.nn.Module):
    """From pixels in [0, 1] to network inputs."""

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        super().__init__()
        self.mean, self.std = (
            torch.from_numpy(value.reshape(1, -1, 1, 1)) for value in (mean, std)
        )

    def forward(self, x):
        """As `torch.nn.Module`."""
        return (x - self.mean) / self.std


class ChannelsLast(torch.nn.Module):
    """Flatten as the exported network does: h, w, c."""

    def forward(self, x):
        """As `torch.nn.Module`."""
        return x.permute(0, 2, 3, 1).flatten(1)


def layers(network: dict[str, np.ndarray]) -> dict[str, torch.nn.Module]:
    """All layers by name, in order, from network inputs to logits."""
    made: dict[str, torch.nn.Module] = {}
    for name in CONVOLUTIONS:
        kernel = torch.from_numpy(network[f"{name}_kernel"].transpose(3, 2, 0, 1).copy())
        conv = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], tuple(kernel.shape[2:]))
        made[f"{name}pre"] = _filled(conv, kernel, network[f"{name}_bias"])
        made[name] = torch.nn.ReLU()
        if name != CONVOLUTIONS[-1]:
            made[f"pool{name[-1]}"] = torch.nn.MaxPool2d(2)
    made["flat"] = ChannelsLast()
    for name in DENSE:
        weight = torch.from_numpy(network[f"{name}_kernel"].T.copy())
        made[name] = _filled(
            torch.nn.Linear(weight.shape[1], weight.shape[0]), weight, network[f"{name}_bias"]
        )
        if name != DENSE[-1]:
            made[f"{name}relu"] = torch.nn.ReLU()
    return made


def up_to_conv3(network: dict[str, np.ndarray]) -> dict[str, torch.nn.Module]:
    """The layers that the third convolution depends on, itself included."""
    made = layers(network)
    names = list(made)
    return {name: made[name] for name in names[: names.index("conv3") + 1]}


def conv3(network: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """As `protocol.Worker`."""
    model = torch.nn.Sequential(*up_to_conv3(network).values())
    with torch.no_grad():
        return (
            model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
            .numpy()
            .transpose(0, 2, 3, 1)
        )


def _filled(module: torch.nn.Module, weight: torch.Tensor, bias: np.ndarray) -> torch.nn.Module:
    module.load_state_dict({"weight": weight, "bias": torch.from_numpy(bias)})
    return module.requires_grad_(False)
