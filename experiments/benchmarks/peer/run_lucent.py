"""torch-lucent: as its quick start shows it, and batched.

``documented`` is ``render_vis`` with its default transforms, Fourier parameterisation and Adam
(0.05), one map at a time, with the size of the image given. The other settings give it the layers
up to conv3 alone, no transforms, and one objective for the whole batch that reads every image's own
map. They are named parameterisation, layer, rate, and ``channels last`` where the network is kept
in that memory layout.
"""

# pyright: reportMissingImports=false

from collections import OrderedDict

import numpy as np
import torch
import torch_network
from protocol import Network, serve

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # torchvision built for CUDA finds no operators in a torch built for CPUs, and stops at the
    # first one that it wants to describe. Nothing here calls these operators: it is enough that
    # their names exist.
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")

import lucent
from lucent.optvis import param, render


class Lucent:
    """A `protocol.Worker`.

    Args:
        network: as exported.
    """

    def __init__(self, network: Network):
        self.network = network
        self.mean = network["mean"]
        self.std = network["std"]
        self.size = network["check_images"].shape[1]
        norm = torch_network.Normalise(self.mean, self.std)
        self.whole = self._model({"norm": norm, **torch_network.layers(network)})
        self.parts = []
        for layout in (torch.contiguous_format, torch.channels_last):
            part = self._model({"norm": norm, **torch_network.up_to_conv3(network)})
            self.parts.append(part.to(memory_format=layout))

    @staticmethod
    def _model(layers):
        return torch.nn.Sequential(OrderedDict(layers)).eval()

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {"torch-lucent": lucent.__version__, "torch": torch.__version__}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        return torch_network.conv3(self.network, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """See `protocol.Worker`."""
        torch.manual_seed(seed)
        # lucent's transforms draw from numpy's generator.
        np.random.seed(seed)  # noqa: NPY002
        if setting == "documented":
            pixels = [self._documented(target, steps) for target in targets]
        else:
            pixels = [self._batch(setting, targets, steps)]
        return (np.concatenate(pixels) - self.mean) / self.std

    def _documented(self, target: int, steps: int):
        """Pixels of one image, by the defaults."""

        def image():
            return param.image(self.size, channels=1)

        return self._render(self.whole, f"conv3:{target}", image, steps)

    def _batch(self, setting: str, targets: list[int], steps: int):
        """Pixels of an image for each target."""
        kind, layer, rate, *layout = setting.split(", ")
        model = self.parts[1 if layout else 0]
        numbers = torch.arange(len(targets))
        maps = torch.tensor(targets)

        def objective(activations):
            return -activations(layer)[numbers, maps].mean((1, 2)).sum()

        def image():
            return param.image(self.size, channels=1, batch=len(targets), fft=kind == "fft")

        def optimizer(z):
            return torch.optim.Adam(z, lr=float(rate))

        options = {"transforms": [], "optimizer": optimizer}
        return self._render(model, objective, image, steps, **options)

    def _render(self, model, objective, image, steps: int, **options):
        """Pixels after the last step."""
        images = render.render_vis(
            model,
            objective,
            image,
            fixed_image_size=self.size,
            thresholds=(steps,),
            preprocess=False,
            progress=False,
            show_image=False,
            **options,
        )
        return images[-1]


serve(Lucent)
