"""Batches of one size, several in flight.

XLA may round differently for another batch shape, and a long ascent amplifies it. So every program
runs at one batch size, the *tile*, whatever is asked for: a batch that is not full is filled up.
Tiles are handed whole to the cores of a CPU, or to the devices there are, and come back in their
order; so neither cores nor devices change a bit. On a CPU two small tiles on two cores are faster
than one large tile on both: they fit into the cores' caches, and nobody waits (measured in
``experiments/benchmarks/throughput.py``). A GPU wants thousands of small images at a time
(``experiments/benchmarks/roofline.py``), and fewer where images are large.

On a CPU equal calls give equal bits. On GPUs scores of equal calls, and those of a map alone and in
a crowd, agree within 1 % (``tests/test_device.py``), since libraries choose their routines anew.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oipjax.ops import compiled_for

TILES = {"cpu": 16}
DEFAULT_TILE = 2048

OPTIONS = {"xla_cpu_multi_thread_eigen": False}
"""Compiler options of programs that run in tiles: a product of matrices is never cut up among
cores, which could change the order of its sums with their number."""


PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}
"""How exact the products of an ascent's steps are, by JAX's names. In bf16 everything between image
and activations is stored in 16 bits too, see `cast`."""


def checked_precision(precision: str) -> str:
    """A precision's name, or float32 on a CPU, which knows no other; a ValueError if there is none of that name."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    return "float32" if jax.default_backend() == "cpu" else precision


def products(precision: str = "float32") -> contextlib.AbstractContextManager:
    """Within it programs are traced whose products are of a precision; see `PRECISIONS`."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(PRECISIONS[precision])


def cast(tree: Any, precision: str) -> Any:
    """Arrays as a precision stores them: in bf16 floating numbers have 16 bits, else all stay as they are."""
    if precision != "bf16":
        return tree
    return jax.tree.map(
        lambda a: a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
    )


def default_tile() -> int:
    """The batch size of every survey and ascent program on this platform."""
    return TILES.get(jax.default_backend(), DEFAULT_TILE)


def checked_tile(tile: int | None) -> int:
    """``tile``, or the default one; a ValueError if it is not positive."""
    if tile is None:
        return default_tile()
    if tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}")
    return tile


def tiles(array: np.ndarray, tile: int) -> list[np.ndarray]:
    """``array [n, ...]`` in pieces of at most ``tile``."""
    return [array[i : i + tile] for i in range(0, len(array), tile)]


def padded(array: np.ndarray, tile: int) -> np.ndarray:
    """``array [n, ...]`` filled up to ``[tile, ...]`` with its last element; nothing looks at the filling."""
    return np.concatenate([array, np.repeat(array[-1:], tile - len(array), axis=0)])


class Program:
    """A jitted function, compiled for every local device of the platform in use; calls may come from any thread.

    JAX's settings belong to a thread. The program is therefore compiled where it is made, under the
    settings in force there, and workers only run it. Products are of full float32, which is what
    bounds are proved for, unless the function itself says otherwise.

    Args:
        function: of ``jax.jit`` with leading static arguments.
        static: these.
        shared: arguments that are the same in every call, e.g. parameters; they are put onto each
            device once.
        like: arrays, or their shapes, of the shape and dtype of the other arguments.
    """

    def __init__(self, function: Any, static: tuple, shared: tuple, like: tuple):
        with products(), compiled_for(jax.default_backend()):
            self._compile(function, static, shared, like)

    def _compile(self, function: Any, static: tuple, shared: tuple, like: tuple) -> None:
        self.devices = jax.local_devices()
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), like)
        if len(self.devices) == 1:
            self.shared = [shared]
            self.compiled = [function.lower(*static, *shared, *shapes).compile()]
            return
        self.shared, self.compiled = [], []
        for device in self.devices:
            place = jax.sharding.SingleDeviceSharding(device)
            here = jax.device_put(shared, device)
            there = jax.tree.map(
                lambda s, p=place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p), shapes
            )
            self.shared.append(here)
            self.compiled.append(function.lower(*static, *here, *there).compile())

    def __call__(self, number: int, *arguments: Any) -> Any:
        """The outputs for tile ``number``, which says on which device it runs."""
        which = number % len(self.devices)
        if len(self.devices) > 1:
            arguments = jax.device_put(arguments, self.devices[which])
        return self.compiled[which](*self.shared[which], *arguments)


def in_flight(work: Callable[[int, Any], Any], pieces: Iterable[Any]) -> Iterator[Any]:
    """``work(number, piece)`` for each piece, as many at a time as there are `workers`, results in order."""
    if (most := workers()) == 1:
        yield from (work(number, piece) for number, piece in enumerate(pieces))
        return
    pool, waiting = ThreadPoolExecutor(most), deque()
    try:
        for number, piece in enumerate(pieces):
            waiting.append(pool.submit(work, number, piece))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def workers() -> int:
    """How many tiles are in flight at a time: on a CPU one for each core, else two for each device.

    While a device computes one, the other's results are fetched.
    """
    devices = jax.local_device_count()
    return max(devices, cores()) if jax.default_backend() == "cpu" else 2 * devices


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
