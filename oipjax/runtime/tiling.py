"""Batches of one size, several in flight.

XLA may round differently for another batch shape, and a long ascent amplifies the difference.
Therefore every program runs at one batch size, the *tile*: a batch that is not full is filled up.
Whole tiles are handed to the cores of a CPU, or to the devices, and their results come back in
order. So neither cores nor devices change a bit.

On a CPU two small tiles on two cores are faster than one large tile on both: they fit into the
cores' caches, and no core waits for another (measured in ``experiments/benchmarks/throughput.py``).
A GPU needs thousands of small images at a time (``experiments/benchmarks/roofline.py``), and fewer
where images are large.

On a CPU equal calls give equal bits. On GPUs the libraries choose their routines anew: scores of
equal calls, and those of a map alone and among others, agree within 1 %
(``tests/test_device.py``).
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

TILES = {"cpu": 16}
"""The default tile of some platforms."""
DEFAULT_TILE = 2048
"""The default tile of all other platforms."""


def default_tile() -> int:
    """The batch size of every survey and ascent program on this platform."""
    return TILES.get(jax.default_backend(), DEFAULT_TILE)


def checked_tile(tile: int | None) -> int:
    """The tile, or the default one for None.

    Raises:
        ValueError: the tile is not positive.
    """
    if tile is None:
        return default_tile()
    if tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}")
    return tile


def tiles(array: np.ndarray, tile: int) -> list[np.ndarray]:
    """``array [n, ...]`` in pieces of at most ``tile``."""
    return [array[first : first + tile] for first in range(0, len(array), tile)]


def padded(array: np.ndarray, tile: int) -> np.ndarray:
    """``array [n, ...]`` filled up to ``[tile, ...]`` with its last element, which nobody reads."""
    filling = np.repeat(array[-1:], tile - len(array), axis=0)
    return np.concatenate([array, filling])


def in_flight(work: Callable[[int, Any], Any], pieces: Iterable[Any]) -> Iterator[Any]:
    """``work(number, piece)`` for each piece, in order; `workers` of them run at a time."""
    most = workers()
    if most == 1:
        for number, piece in enumerate(pieces):
            yield work(number, piece)
        return
    pool = ThreadPoolExecutor(most)
    waiting = deque()
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

    While a device computes one tile, the results of the other are fetched.
    """
    devices = jax.local_device_count()
    if jax.default_backend() == "cpu":
        return max(devices, cores())
    return 2 * devices


def cores() -> int:
    """Number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    count = os.cpu_count()
    return 1 if count is None else count
