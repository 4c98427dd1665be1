"""A function compiled once for each device, and run tile by tile."""

from typing import Any

import jax
import numpy as np

from oipjax.ops import compiled_for
from oipjax.runtime.precision import products

OPTIONS = {"xla_cpu_multi_thread_eigen": False}
"""Compiler options of programs that run in tiles.

A product of matrices is never split among cores, because the order of its sums could then change
with the number of cores.
"""


class Program:
    """A jitted function, compiled for every local device of the platform in use.

    Calls may come from any thread. JAX's settings belong to a thread; therefore the program is
    compiled where it is made, under the settings in force there, and workers only run it. Products
    are of full float32, for which bounds are proved, unless the function itself sets another
    precision.

    Args:
        function: of ``jax.jit``, with leading static arguments.
        static: values of the static arguments.
        shared: arguments that are the same in every call, e.g. parameters; they are put onto each
            device once.
        like: arrays, or their shapes, of the shape and dtype of the other arguments.
    """

    def __init__(self, function: Any, static: tuple, shared: tuple, like: tuple):
        with products(), compiled_for(jax.default_backend()):
            self._compile(function, static, shared, like)

    def _compile(self, function: Any, static: tuple, shared: tuple, like: tuple) -> None:
        self.devices = jax.local_devices()
        if len(self.devices) == 1:
            shapes = _shapes(like, None)
            self.shared = [shared]
            self.compiled = [function.lower(*static, *shared, *shapes).compile()]
            return
        self.shared = []
        self.compiled = []
        for device in self.devices:
            shared_here = jax.device_put(shared, device)
            shapes = _shapes(like, jax.sharding.SingleDeviceSharding(device))
            lowered = function.lower(*static, *shared_here, *shapes)
            self.shared.append(shared_here)
            self.compiled.append(lowered.compile())

    def __call__(self, number: int, *arguments: Any) -> Any:
        """The outputs for tile ``number``; the number decides on which device it runs."""
        which = number % len(self.devices)
        if len(self.devices) > 1:
            arguments = jax.device_put(arguments, self.devices[which])
        return self.compiled[which](*self.shared[which], *arguments)


def _shapes(like: tuple, sharding: jax.sharding.Sharding | None) -> tuple:
    """Shapes and dtypes of arrays, with a device for them."""

    def shape(leaf):
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, like)
