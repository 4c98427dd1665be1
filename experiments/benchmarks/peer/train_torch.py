"""Training in torch: a plain loop over normalised images that are one tensor in memory.

A request is one epoch: ``steps`` is its number, and 1 starts anew from the weights of
``start{round}.npz``. The one target is the number of images. The seed is 1000 times the round, as
`protocol` makes it. The answer is ``[[seconds, test accuracy]]``, without the time of the test.

Settings are named memory layout, Adam's implementation, and source of the batches: images gathered
``by batch``, or shuffled ``at once`` and cut.
"""

# pyright: reportMissingImports=false

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch_network
from protocol import Network, serve

FOLDER = Path(sys.argv[1])
TEST_BATCH = 500


class Loop:
    """A `protocol.Worker`.

    Args:
        network: as exported.
    """

    def __init__(self, network: Network):
        # The other contenders flush denormal numbers too. Means of gradients that have become zero
        # are slow otherwise.
        torch.set_flush_denormal(True)
        self.network = network
        with np.load(FOLDER / "training.npz") as file:
            plan = dict(file)
        self.batch = int(plan["batch"])
        self.rate = float(plan["rate"])
        self.images = self._normalised(plan["train_images"])
        self.test_images = self._normalised(plan["test_images"])
        self.labels = torch.from_numpy(plan["train_labels"].astype(np.int64))
        self.test_labels = torch.from_numpy(plan["test_labels"].astype(np.int64))
        self._start("contiguous", False, 0)

    def _normalised(self, images: np.ndarray) -> torch.Tensor:
        """Network inputs ``[n, h, w, c]`` of images of 0 to 255."""
        pixels = images / np.float32(255)
        return torch.from_numpy((pixels - self.network["mean"]) / self.network["std"])

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        return torch_network.conv3(self.network, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """Train one epoch."""
        layout, adam, source = setting.split(", ")
        if steps == 1:
            self._start(layout, adam == "fused", seed)
        (count,) = targets
        torch.manual_seed(seed + steps)
        begin = time.perf_counter()
        for images, labels in self._batches(count, source):
            self.optimiser.zero_grad()
            logits = self.model(self._arranged(images))
            torch.nn.functional.cross_entropy(logits, labels).backward()
            self.optimiser.step()
        seconds = time.perf_counter() - begin
        return np.array([[seconds, self._accuracy()]])

    def _start(self, layout: str, fused: bool, seed: int) -> None:
        """Take the weights that the round starts from, and a new optimiser."""
        with np.load(FOLDER / f"start{seed // 1000}.npz") as file:
            layers = torch_network.layers(self.network | dict(file))
        self.layout = torch.channels_last if layout == "channels last" else torch.contiguous_format
        model = torch.nn.Sequential(*layers.values()).to(memory_format=self.layout)
        self.model = model.requires_grad_(True)
        parameters = self.model.parameters()
        self.optimiser = torch.optim.Adam(parameters, lr=self.rate, fused=fused)

    def _batches(self, count: int, source: str):
        """Images and labels of each batch of an epoch, in random order."""
        whole = count // self.batch * self.batch
        order = torch.randperm(count)[:whole]
        if source == "at once":
            images = self.images[order].split(self.batch)
            labels = self.labels[order].split(self.batch)
            yield from zip(images, labels, strict=True)
        else:
            for numbers in order.split(self.batch):
                yield self.images[numbers], self.labels[numbers]

    def _arranged(self, images):
        """Images ``[n, c, h, w]`` in the memory layout of the network."""
        if self.layout == torch.channels_last:
            return images.permute(0, 3, 1, 2)
        # There is one channel, so the order of the numbers is the same in both layouts.
        return images.reshape(len(images), 1, *images.shape[1:3])

    def _accuracy(self) -> float:
        """Share of the test images that are classified rightly."""
        parts = []
        with torch.no_grad():
            for images in self.test_images.split(TEST_BATCH):
                logits = self.model(self._arranged(images))
                parts.append(logits.argmax(1))
        is_right = torch.cat(parts) == self.test_labels
        return float(is_right.double().mean())


serve(Loop)
