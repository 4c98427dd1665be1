"""Random starts, made from their numbers whenever they are needed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Integer, Key, Shaped

from oipjax import keys
from oipjax.runtime import OPTIONS, Program, checked_tile, in_flight, padded, products, tiles
from oipjax.spaces import Space, space_shapes

MAX_DRAWS = 2**32 - 1
GROUP = 16
"""Tiles in one call of a survey's programs, unless they hold more than `GROUP_VALUES` values."""
GROUP_VALUES = 2**22


class Starts:
    """The program that makes starts from their numbers, several tiles at a call.

    It is always the same program, so the same number gives the same bits.

    Args:
        space: the image space of the starts.
        tile: the batch size.

    Attributes:
        tile: the batch size.
        group: the number of tiles in one call.
    """

    def __init__(self, space: Space, tile: int):
        values = tile * int(np.prod(space_shapes(space)[0]))
        self.tile = tile
        self.group = max(1, min(GROUP, GROUP_VALUES // values))
        stream = jax.eval_shape(jax.random.key, 0)
        numbers = jax.ShapeDtypeStruct((self.group, tile), np.uint32)
        like = (stream, numbers, np.int32(0))
        self.program = Program(_make_starts, (space,), (), like)

    @property
    def size(self) -> int:
        """The most starts of one call."""
        return self.group * self.tile

    def __call__(
        self, worker: int, stream: Key[Array, ""], index: Integer[np.ndarray, " n"]
    ) -> Float32[Array, "group tile ..."]:
        """Starts as an array ``z [group, tile, ...]``, of which the first ``n`` count.

        Args:
            worker: says on which device the program runs.
            stream: the key of the stream.
            index: integers ``[n]``, the numbers of the starts; at most ``size``.
        """
        numbers = self.grouped(index.astype(np.uint32))
        return self.program(worker, stream, numbers, self.tiles_of(index))

    def array(
        self, worker: int, stream: Key[Array, ""], index: Integer[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n ..."]:
        """As a call, but ``z [n, ...]``."""
        z = np.asarray(self(worker, stream, index))
        return z.reshape(-1, *z.shape[2:])[: len(index)]

    def grouped(self, array: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "group tile ..."]:
        """``array [n, ...]`` filled up to ``[group, tile, ...]``."""
        filled = padded(array, self.size)
        return filled.reshape(self.group, self.tile, *array.shape[1:])

    def tiles_of(self, array: Shaped[np.ndarray, "n ..."]) -> np.int32:
        """The number of tiles that ``array [n, ...]`` takes."""
        return np.int32(-(-len(array) // self.tile))


def make_starts(
    key: Key[Array, ""],
    space: Space,
    index: Integer[np.ndarray, " n"],
    *,
    tile: int | None = None,
) -> Float32[np.ndarray, "n ..."]:
    """The starts ``z [n, ...]`` of a survey, made again with the same bits.

    Args:
        key: the root key of the survey.
        space: the survey's image space.
        index: integers ``[n]``, the numbers of the starts.
        tile: the survey's tile.

    Raises:
        ValueError: ``index`` does not hold numbers of starts.
    """
    program = Starts(space, checked_tile(tile))
    stream = keys.stream(key, keys.SURVEY)
    index = checked_start_numbers(index)

    def work(worker: int, numbers: Integer[np.ndarray, " m"]) -> Float32[np.ndarray, "m ..."]:
        return program.array(worker, stream, numbers)

    parts = in_flight(work, tiles(index, program.size))
    return np.concatenate(list(parts))


def checked_start_numbers(index: object) -> Integer[np.ndarray, " n"]:
    """Numbers of starts as an integer array ``[n]``.

    Raises:
        ValueError: they are not integers, or out of range.
    """
    numbers = np.asarray(index)
    is_vector = numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.integer)
    if not is_vector or (numbers < 0).any() or (numbers > MAX_DRAWS).any():
        given = f"{numbers.dtype} {numbers.shape}"
        raise ValueError(f"starts are numbered by integers [n] from 0 to {MAX_DRAWS}, got {given}")
    return numbers


def images_of(
    space: Space, z: Float[np.ndarray, "n ..."], *, tile: int | None = None
) -> Float32[np.ndarray, "n h w c"]:
    """The images of a space's points, which are projected first.

    Args:
        space: the image space.
        z: ``[n, ...]``.
        tile: the batch size.

    Returns:
        Network inputs, float32 ``[n, h, w, c]``.
    """
    size = checked_tile(tile)
    z = np.asarray(z, np.float32)
    with products():
        images = [_images(space, padded(part, size)) for part in tiles(z, size)]
    return np.concatenate(images)[: len(z)]


@functools.partial(jax.jit, static_argnums=0)
def _images(space: Space, z):
    return jax.vmap(lambda z: space.render(space.project(z)))(z)


@functools.partial(jax.jit, static_argnums=0, compiler_options=OPTIONS)
def _make_starts(space: Space, stream, index, count):
    """The starts ``z [group, tile, ...]`` of ``index [group, tile]``, in ``count`` tiles."""

    def start(number):
        return space.init(jax.random.fold_in(stream, number))

    def make(place, z):
        return z.at[place].set(jax.vmap(start)(index[place]))

    shape = space_shapes(space)[0]
    nothing = jnp.zeros((*index.shape, *shape), jnp.float32)
    return jax.lax.fori_loop(0, count, make, nothing)
