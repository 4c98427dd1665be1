"""What convolutions and poolings share: padding, windows, and two ways to tell JAX and XLA what belongs together."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import batching

Padding = str | tuple[tuple[int, int], tuple[int, int]]
Pads = tuple[tuple[int, int], tuple[int, int]]


def pads_of(shape: tuple[int, ...], window, stride, padding: Padding) -> Pads:
    """``((top, bottom), (left, right))`` for images of a shape; a ValueError if the window does not fit."""
    if min(stride) < 1:
        raise ValueError(
            f"expected a stride of 1 pixel or more along each side, got {tuple(stride)}"
        )
    named = isinstance(padding, str)
    vertical, horizontal = (
        lax.padtype_to_pads(shape[1:3], window, stride, padding.upper()) if named else padding
    )
    pads = (int(vertical[0]), int(vertical[1])), (int(horizontal[0]), int(horizontal[1]))
    for size, size_of_window, (low, high) in zip(shape[1:3], window, pads, strict=True):
        if size + low + high < size_of_window:
            raise ValueError(
                f"a window of {tuple(window)} does not fit into an image of {shape[1:3]} padded by {pads}"
            )
    return pads


def size_of(shape: tuple[int, ...], window, stride, pads: Pads) -> tuple[int, int]:
    """Height and width of what a window makes of images of a shape."""
    sizes = [
        (n + sum(p) - k) // s + 1
        for n, p, k, s in zip(shape[1:3], pads, window, stride, strict=True)
    ]
    return sizes[0], sizes[1]


def padded(x: Array, pads: Pads) -> Array:
    """Images with a border of zeros; what is negative is cut off."""
    if not any(map(any, pads)):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))


def uncovered(large: Array, shape: tuple[int, ...], pads: Pads) -> Array:
    """Images of a shape out of such with a border, of which there may be more below and to the right, or less."""
    edges = [
        (-low, low + size - part)
        for (low, _), size, part in zip(pads, shape[1:3], large.shape[1:3], strict=True)
    ]
    return padded(large, (edges[0], edges[1]))


def offsets(window: tuple[int, int]) -> list[tuple[int, int]]:
    """All places in a window, row by row."""
    return [(i, j) for i in range(window[0]) for j in range(window[1])]


def strided(
    x: Array, offset: tuple[int, int], stride: tuple[int, int], out: tuple[int, int]
) -> Array:
    """The pixels of ``x`` that window position ``offset`` sees, ``[n, *out, c]``."""
    (i, j), (si, sj), (h, w) = offset, stride, out
    limits = (x.shape[0], i + (h - 1) * si + 1, j + (w - 1) * sj + 1, x.shape[3])
    return lax.slice(x, (0, i, j, 0), limits, (1, si, sj, 1))


def spread(
    g: Array, offset: tuple[int, int], stride: tuple[int, int], shape: tuple[int, ...]
) -> Array:
    """Transpose of `strided`: ``g[n, i, j, c]`` put back onto zeros of ``shape``."""
    edges = []
    for o, s, out, size in zip(offset, stride, g.shape[1:3], shape[1:3], strict=True):
        edges.append((o, size - o - (out - 1) * s - 1, s - 1))
    return lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *edges, (0, 0, 0)))


def interleaved(parts: Sequence[Array]) -> Array:
    """A quartet as images ``[n, 2 i, 2 j, k]``."""
    n, i, j, k = parts[0].shape
    return jnp.stack([jnp.stack(parts[:2], 3), jnp.stack(parts[2:], 3)], 2).reshape(
        n, 2 * i, 2 * j, k
    )


def parted(y: Array) -> list[Array]:
    """The quartet of images; a row or column of zeros is added to an odd number of them."""
    y = padded(y, even(y.shape[1:3]))
    pairs = y.reshape(y.shape[0], y.shape[1] // 2, 2, y.shape[2] // 2, 2, y.shape[3])
    return [pairs[:, :, p, :, q] for p in (0, 1) for q in (0, 1)]


def winners(parts: Sequence[Array]) -> tuple[Array, Array]:
    """The maximum of arrays of one shape, and which of them it is: the first of equals; of NaN the first one."""
    best = functools.reduce(jnp.maximum, parts)
    winner = jnp.zeros(best.shape, jnp.uint8 if len(parts) < 256 else jnp.uint32)
    for index in range(len(parts) - 1, -1, -1):
        winner = jnp.where(parts[index] == best, jnp.array(index, winner.dtype), winner)
    return best, winner


def to_winners(winner: Array, dy: Array, count: int) -> list[Array]:
    """Transpose of `winners`: the gradient of each of ``count`` arrays, ``dy`` where it won and 0 elsewhere."""
    return [jnp.where(winner == index, dy, 0) for index in range(count)]


def even(size: tuple[int, ...], pads: Pads = ((0, 0), (0, 0))) -> Pads:
    """Pads that are larger by 1 where they would otherwise leave an odd size."""
    (top, bottom), (left, right) = pads
    return (top, bottom + (size[0] + top + bottom) % 2), (
        left,
        right + (size[1] + left + right) % 2,
    )


_PLAIN = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def trace_only() -> Iterator[None]:
    """Within it `choose` takes what all platforms have in common, for who only looks at a program: half the tracing."""
    token = _PLAIN.set(True)
    try:
        # The mark is part of what JAX remembers traces by: one made here is not taken for one that
        # is to run.
        with set_xla_metadata(plain="true"):
            yield
    finally:
        _PLAIN.reset(token)


_PLATFORM = contextvars.ContextVar[str | None]("platform", default=None)


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """Within it `choose` takes the way of one platform, for who compiles for it alone: half the tracing.

    JAX does not see it. A function of ``jax.jit`` that was traced within keeps that way: right
    values, but perhaps slow ones, if it is lowered for another platform later.
    """
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


_ROUGH = contextvars.ContextVar("rough", default=False)


@contextlib.contextmanager
def allow_extra_rounding() -> Iterator[None]:
    """Within it 3x3 convolutions are traced as `oipjax.ops.toom_cook` has them: faster on a CPU, with more rounding.

    For trainings on a CPU; what bounds, or scores, are told of is not to be computed within. Of JAX
    and ``jax.jit`` the same holds as for `compiled_for`: a jitted function that was traced within
    keeps it.
    """
    token = _ROUGH.set(True)
    try:
        yield
    finally:
        _ROUGH.reset(token)


def rough() -> bool:
    """Whether a program is traced `allow_extra_rounding`, to run on a CPU."""
    return _ROUGH.get() and not _PLAIN.get() and _PLATFORM.get() in (None, "cpu")


def looked_at() -> bool:
    """Whether a program is traced `trace_only`."""
    return _PLAIN.get()


def choose(
    *arguments: Any,
    cpu: Callable[..., Any],
    default: Callable[..., Any],
    seen: Callable[..., Any] | None = None,
) -> Any:
    """One of several ways to compute the same: by the platform that a program is lowered for, or is `compiled_for`.

    ``seen`` (``default`` unless given) is what is traced `trace_only`.
    """
    if _PLAIN.get():
        return (default if seen is None else seen)(*arguments)
    if (platform := _PLATFORM.get()) is not None:
        return (cpu if platform == "cpu" else default)(*arguments)
    return lax.platform_dependent(*arguments, cpu=cpu, default=default)


Asked = tuple[tuple[()] | None, ...]


def asked(*primals: Any) -> tuple[tuple[Array, ...], Asked]:
    """Values of what a ``custom_vjp`` with ``symbolic_zeros`` is given, and a mark where a gradient is asked for.

    XLA drops gradients that nobody uses, but only after they have been traced, which takes longer.
    The marks are pytrees without leaves, so that they may be residuals.
    """
    return tuple(p.value for p in primals), tuple(() if p.perturbed else None for p in primals)


def step(function: Callable[..., Any], *, of_each: bool = True) -> Callable[..., Any]:
    """``function(shared, *images)`` as a step of its own; ``of_each``: what it gives has a row for each image.

    XLA computes an elementwise step again for each of its readers rather than store what it gives.
    Where there are sixteen of them, as in `winograd`, that costs more than all products. So what
    goes in is stored, and what comes out. And under `jax.vmap` the new axis becomes part of the
    images' first one, which is what products of matrices want, as long as what is shared has none
    and the images are not summed over.
    """

    def inside(*arguments):
        with set_xla_metadata(inlineable="true"):  # the attribute is inherited by all calls within
            return function(*arguments)

    @custom_vmap
    def call(*arguments):
        with set_xla_metadata(inlineable="false"):
            return jax.jit(inside)(*arguments)

    @call.def_vmap
    def _(size, batched, *arguments):
        shared, *images = arguments
        if not of_each or any(jax.tree.leaves(batched[0])) or not all(jax.tree.leaves(batched[1:])):
            axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
            out = jax.vmap(function, axes)(*arguments)
        else:
            flat = call(shared, *jax.tree.map(lambda image: lax.collapse(image, 0, 2), images))
            rows = jax.tree.leaves(images)[0].shape[1]
            out = jax.tree.map(lambda leaf: leaf.reshape(size, rows, *leaf.shape[1:]), flat)
        return out, jax.tree.map(lambda _: True, out)

    @jax.custom_jvp
    def apart(*arguments):
        return call(*arguments)

    @apart.defjvp
    def _(primals, tangents):  # of a gradient: `custom_vmap` has no way back
        return jax.jvp(function, primals, tangents)

    return apart


def unproved(x: Array) -> Array:
    """The same values, marked where a program is only looked at: how they are rounded is nobody's proof.

    A bound of them is then refused, since there is no rule for the primitive that marks them.
    """
    return _mark().bind(x) if _PLAIN.get() else x


@functools.cache
def _mark() -> Any:
    from jax.extend.core import (
        Primitive,  # not above: with it comes a compiler of kernels, which takes long to import
    )

    mark = Primitive("kernel_gradient_by_minimal_filtering")
    mark.def_abstract_eval(lambda x: x)
    batching.primitive_batchers[mark] = lambda arguments, axes: (mark.bind(*arguments), axes[0])
    return mark
