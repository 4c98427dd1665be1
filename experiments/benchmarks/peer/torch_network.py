"""The exported network in torch."""

# pyright: reportMissingImports=false

import numpy as np
import torch
from protocol import CONVOLUTIONS, DENSE, Network

Layers = dict[str, torch.nn.Module]


class Normalise(torch.nn.Module):
    """From pixels in [0, 1] to network inputs.

    Args:
        mean: ``[c]``, of the pixels.
        std: ``[c]``, of the pixels.
    """

    def __init__(self, mean: np.ndarray, std: np.ndarray):
        super().__init__()
        self.mean = torch.from_numpy(mean.reshape(1, -1, 1, 1))
        self.std = torch.from_numpy(std.reshape(1, -1, 1, 1))

    def forward(self, x):
        """See `torch.nn.Module`."""
        return (x - self.mean) / self.std


class ChannelsLast(torch.nn.Module):
    """Flatten in the order of the exported network: h, w, c."""

    def forward(self, x):
        """See `torch.nn.Module`."""
        return x.permute(0, 2, 3, 1).flatten(1)


def layers(network: Network) -> Layers:
    """All layers by name, in order, from network inputs to logits."""
    made: Layers = {}
    for name in CONVOLUTIONS:
        array = network[f"{name}_kernel"].transpose(3, 2, 0, 1)
        kernel = torch.from_numpy(array.copy())
        filters, channels, *window = kernel.shape
        conv = torch.nn.Conv2d(channels, filters, tuple(window))
        made[f"{name}pre"] = _filled(conv, kernel, network[f"{name}_bias"])
        made[name] = torch.nn.ReLU()
        if name != CONVOLUTIONS[-1]:
            made[f"pool{name[-1]}"] = torch.nn.MaxPool2d(2)
    made["flat"] = ChannelsLast()
    for name in DENSE:
        weight = torch.from_numpy(network[f"{name}_kernel"].T.copy())
        outputs, inputs = weight.shape
        dense = torch.nn.Linear(inputs, outputs)
        made[name] = _filled(dense, weight, network[f"{name}_bias"])
        if name != DENSE[-1]:
            made[f"{name}relu"] = torch.nn.ReLU()
    return made


def up_to_conv3(network: Network) -> Layers:
    """The layers up to the third convolution and its ReLU."""
    made = layers(network)
    names = list(made)
    count = names.index("conv3") + 1
    return {name: made[name] for name in names[:count]}


def conv3(network: Network, images: np.ndarray) -> np.ndarray:
    """See `protocol.Worker`."""
    model = torch.nn.Sequential(*up_to_conv3(network).values())
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        activations = model(inputs)
    return activations.numpy().transpose(0, 2, 3, 1)


def _filled(module: torch.nn.Module, weight: torch.Tensor, bias: np.ndarray) -> torch.nn.Module:
    """The module with the weights, which are not trained."""
    module.load_state_dict({"weight": weight, "bias": torch.from_numpy(bias)})
    return module.requires_grad_(False)
