"""torch-lucent: as its quick start shows it, and batched.

``documented`` is ``render_vis`` with its default transforms, Fourier parameterisation and Adam
(0.05), one map at a time, told the size of the image. The other settings give it the layers up to
conv3 alone, no transforms, and one objective for the whole batch that reads every image's own map;
they are named parameterisation, layer, rate, and ``channels last`` where the network is kept in
that memory layout.
"""

# pyright: reportMissingImports=false

from collections import OrderedDict

import numpy as np
import torch
import torch_network
from protocol import serve

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # torchvision built for CUDA finds no operators in a torch built for CPUs and stops at the first
    # that it wants to describe. Nothing here calls one of them: it is enough that their names
    # exist.
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")

import lucent
from lucent.optvis import param, render


class Lucent:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        self.network = network
        self.mean, self.std = network["mean"], network["std"]
        self.size = network["check_images"].shape[1]
        norm = torch_network.Normalise(self.mean, self.std)
        self.whole = self._model({"norm": norm, **torch_network.layers(network)})
        self.parts = [
            self._model({"norm": norm, **torch_network.up_to_conv3(network)}).to(
                memory_format=layout
            )
            for layout in (torch.contiguous_format, torch.channels_last)
        ]

    @staticmethod
    def _model(layers):
        return torch.nn.Sequential(OrderedDict(layers)).eval()

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {"torch-lucent": lucent.__version__, "torch": torch.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return torch_network.conv3(self.network, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """As `protocol.Worker`."""
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (lucent's transforms draw from it)
        common = {
            "thresholds": (steps,),
            "preprocess": False,
            "progress": False,
            "show_image": False,
        }
        if setting == "documented":
            pixels = [
                self._render(
                    self.whole,
                    f"conv3:{target}",
                    lambda: param.image(self.size, channels=1),
                    common,
                )
                for target in targets
            ]
        else:
            kind, layer, rate, *last = setting.split(", ")
            count, maps = torch.arange(len(targets)), torch.tensor(targets)
            pixels = [
                self._render(
                    self.parts[bool(last)],
                    lambda activations: -activations(layer)[count, maps].mean((1, 2)).sum(),
                    lambda: param.image(
                        self.size, channels=1, batch=len(targets), fft=kind == "fft"
                    ),
                    {
                        **common,
                        "transforms": [],
                        "optimizer": lambda z: torch.optim.Adam(z, lr=float(rate)),
                    },
                )
            ]
        return (np.concatenate(pixels) - self.mean) / self.std

    def _render(self, model, objective, image, options):
        return render.render_vis(model, objective, image, fixed_image_size=self.size, **options)[-1]


serve(Lucent)
