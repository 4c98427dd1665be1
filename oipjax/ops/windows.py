"""Arithmetic of padding and windows, shared by convolutions and poolings."""

import jax.numpy as jnp
from jax import Array, lax

Shape = tuple[int, ...]

Pair = tuple[int, int]
"""One number for each side of an image: vertical, horizontal."""

Padding = str | tuple[Pair, Pair]
"""``"VALID"``, ``"SAME"`` or ``((top, bottom), (left, right))`` in pixels."""

Pads = tuple[Pair, Pair]
"""``((top, bottom), (left, right))`` in pixels; a negative number crops."""

Edges = tuple[int, int, int]
"""Padding along one side as in ``lax.pad``: before, behind, and between pixels."""

NO_PADS: Pads = ((0, 0), (0, 0))


def pads_of(
    shape: Shape,
    window: Shape,
    stride: Shape,
    padding: Padding,
) -> Pads:
    """Padding in pixels.

    Args:
        shape: of the images, ``(n, h, w, ...)``.
        window: height and width of the window.
        stride: steps along h and w.
        padding: a name or explicit pairs.

    Returns:
        ``((top, bottom), (left, right))``.

    Raises:
        ValueError: a stride is below 1, or the window is larger than the padded image.
    """
    if min(stride) < 1:
        raise ValueError(
            f"expected a stride of 1 pixel or more along each side, got {tuple(stride)}"
        )
    image = shape[1:3]
    if isinstance(padding, str):
        vertical, horizontal = lax.padtype_to_pads(image, window, stride, padding.upper())
    else:
        vertical, horizontal = padding
    pads = (_as_integers(vertical), _as_integers(horizontal))
    height, width = padded_size(image, pads)
    if height < window[0] or width < window[1]:
        raise ValueError(
            f"a window of {tuple(window)} does not fit into an image of {image} padded by {pads}"
        )
    return pads


def _as_integers(edges) -> Pair:
    low, high = edges
    return int(low), int(high)


def padded_size(size: Shape, pads: Pads) -> Pair:
    """Height and width of images of a size, with padding."""
    vertical, horizontal = pads
    return size[0] + sum(vertical), size[1] + sum(horizontal)


def output_size(
    shape: Shape,
    window: Shape,
    stride: Shape,
    pads: Pads,
) -> Pair:
    """Height and width of the output of a window that slides over images of a shape."""
    height, width = padded_size(shape[1:3], pads)
    rows = (height - window[0]) // stride[0] + 1
    columns = (width - window[1]) // stride[1] + 1
    return rows, columns


def padded(x: Array, pads: Pads) -> Array:
    """Images ``[n, h, w, c]`` with a border of zeros; negative padding crops."""
    if not any(map(any, pads)):
        return x
    vertical, horizontal = pads
    zero = jnp.zeros((), x.dtype)
    return pad_sides(x, zero, (*vertical, 0), (*horizontal, 0))


def pad_sides(x: Array, value: Array, rows: Edges, columns: Edges) -> Array:
    """``lax.pad`` of images ``[n, h, w, c]`` along h and w."""
    none = (0, 0, 0)
    return lax.pad(x, value, (none, rows, columns, none))


def without_border(large: Array, shape: Shape, pads: Pads) -> Array:
    """Inverse of `padded`: images of a shape out of the padded ones.

    The padded images may be larger below and to the right than ``pads`` says. They may also be
    smaller; missing pixels are then filled with zeros.
    """
    (top, _), (left, _) = pads
    below = top + shape[1] - large.shape[1]
    right = left + shape[2] - large.shape[2]
    return padded(large, ((-top, below), (-left, right)))


def pads_to_even(size: Shape, pads: Pads = NO_PADS) -> Pads:
    """Padding that makes both sides of images of a size even.

    It is ``pads``, with one more row below or one more column to the right where the padded side
    would be odd.
    """
    (top, bottom), (left, right) = pads
    height, width = padded_size(size, pads)
    bottom += height % 2
    right += width % 2
    return ((top, bottom), (left, right))


def offsets(window: Shape) -> list[Pair]:
    """All positions in a window, row by row."""
    rows, columns = window
    return [(i, j) for i in range(rows) for j in range(columns)]


def strided(
    x: Array,
    offset: Pair,
    stride: Pair,
    size: Pair,
) -> Array:
    """Pixels at position ``offset`` of every window, ``[n, *size, c]``.

    Args:
        x: images, ``[n, h, w, c]``.
        offset: the position in the window.
        stride: steps of the window along h and w.
        size: number of windows along h and w.
    """
    n, _, _, c = x.shape
    top, left = offset
    down, across = stride
    bottom = top + (size[0] - 1) * down + 1
    right = left + (size[1] - 1) * across + 1
    start = (0, top, left, 0)
    end = (n, bottom, right, c)
    return lax.slice(x, start, end, (1, down, across, 1))


def spread(
    g: Array,
    offset: Pair,
    stride: Pair,
    shape: Shape,
) -> Array:
    """Transpose of `strided`: ``g[n, i, j, c]`` written into zeros of a shape."""
    top, left = offset
    down, across = stride
    rows = _spread_edges(top, down, g.shape[1], shape[1])
    columns = _spread_edges(left, across, g.shape[2], shape[2])
    return pad_sides(g, jnp.zeros((), g.dtype), rows, columns)


def _spread_edges(low: int, step: int, count: int, size: int) -> Edges:
    """Padding that spreads ``count`` pixels over a side of ``size``, from ``low`` on."""
    high = size - low - (count - 1) * step - 1
    return low, high, step - 1
