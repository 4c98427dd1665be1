"""The cells of the window bound: their kinds, the bits they can see, what neighbours share.

`oipjax.bounds.conv.windows` states the problem. A position of the second convolution is in the set
``S`` or not. A cell feeds ``kh * kw`` positions, and its *bits* say which of them are in ``S``. A
*row* is a kind of cell and a pattern of bits that such a cell can see.

Axes: ``s`` patterns of bits, ``r`` rows, ``n`` problems, ``p`` pixels of a patch.
"""

import itertools
from dataclasses import dataclass

import jax
import numpy as np

from oipjax.bounds.conv.patches import Cells


@dataclass(frozen=True, eq=False)
class Side:
    """The bits and pixels that a cell shares with its neighbour on one side.

    One of the two cells counts the multipliers phi of the shared part, the other counts minus phi.

    Attributes:
        table: which of the two tables phi is used: 0 for neighbours in a row, 1 for neighbours in a
            column.
        entry: ``[r]``, the entry of the table.
        sign: float32 ``[r]``, 1 or -1; 0 without a neighbour.
        pixels: ``[shared, p]``, 1 where an entry's pixel is a pixel of the patch.
    """

    table: int
    entry: np.ndarray
    sign: np.ndarray
    pixels: np.ndarray

    def take(self, rows: np.ndarray) -> "Side":
        """Select rows."""
        return Side(
            table=self.table,
            entry=self.entry[rows],
            sign=self.sign[rows],
            pixels=self.pixels,
        )


jax.tree_util.register_dataclass(Side, ["entry", "sign", "pixels"], ["table"])


@dataclass(frozen=True, eq=False)
class Rows:
    """For each kind of cell, every pattern of bits that it can see.

    Attributes:
        bits: bool ``[s, kh * kw]``, whether the positions that a cell feeds are in ``S``.
        pattern: ``[r]``, the pattern of bits of each row.
        kind: ``[r]``, the kind of cell of each row.
        count: ``[kinds]``, the number of cells.
        positions: the number of positions of the second convolution.
        sides: right, left, bottom and top.
        tables: shapes of the two tables phi. An entry holds a weight for each shared pixel, and
            last a constant.
    """

    bits: np.ndarray
    pattern: np.ndarray
    kind: np.ndarray
    count: np.ndarray
    positions: int
    sides: tuple[Side, ...]
    tables: tuple[tuple[int, int], ...]

    def worst(self, values: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """Take the largest of ``values[n]``, of rows ``origin[n]``, for each kind of cell."""
        largest = np.full(len(self.count), -np.inf, values.dtype)
        np.maximum.at(largest, self.kind[origin], values)
        return largest


@dataclass(frozen=True, eq=False)
class _Axis:
    """The kinds of cells along one axis.

    Attributes:
        first: bool ``[kinds]``, whether cells of the kind are first on the axis.
        last: bool ``[kinds]``, whether they are last.
        exists: bool ``[kinds, taps]``, which of the positions that such a cell could feed exist.
        count: ``[kinds]``, the number of cells of the kind on the axis.
    """

    first: np.ndarray
    last: np.ndarray
    exists: np.ndarray
    count: np.ndarray


def make_rows(first: Cells, taps: tuple[int, int], shape: tuple[int, int]) -> Rows:
    """List the rows of an image.

    Args:
        first: the first stage.
        taps: ``(kh, kw)`` of the second kernel.
        shape: ``(h, w)`` of the image.

    Raises:
        ValueError: the image has too few cells for the kernel.
    """
    kh, kw = taps
    h, w, _ = first.patch
    pool = first.pool
    a = (shape[0] - h) // pool + 1
    b = (shape[1] - w) // pool + 1
    if a < kh or b < kw:
        raise ValueError(
            f"{kh} x {kw} taps do not fit into the {max(a, 0)} x {max(b, 0)} cells "
            f"of an image {shape}"
        )
    vertical = _axis(a, kh)
    horizontal = _axis(b, kw)
    bits = _all_bits(kh * kw).reshape(-1, kh, kw)
    row_kind, column_kind, pattern = _visible(bits, vertical, horizontal)
    cell_kinds = np.outer(vertical.count, horizontal.count)
    sides = _sides(first, bits, pattern, (row_kind, column_kind), (vertical, horizontal))
    # Each kind of row has its own entries for neighbours in it, and so has each kind of column.
    row_entries = len(vertical.count) * 2 ** (kh * (kw - 1))
    column_entries = len(horizontal.count) * 2 ** ((kh - 1) * kw)
    return Rows(
        bits=bits.reshape(len(bits), -1),
        pattern=pattern,
        kind=row_kind * len(horizontal.count) + column_kind,
        count=cell_kinds.ravel(),
        positions=(a - kh + 1) * (b - kw + 1),
        sides=sides,
        tables=(
            (row_entries, len(sides[0].pixels) + 1),
            (column_entries, len(sides[2].pixels) + 1),
        ),
    )


def _axis(cells: int, taps: int) -> _Axis:
    """The kinds of cells along an axis of so many cells."""
    cell = np.arange(cells)[:, None]
    position = cell + np.arange(taps) - (taps - 1)
    exists = (position >= 0) & (position <= cells - taps)
    facts = np.concatenate([cell == 0, cell == cells - 1, exists], 1)
    kinds, count = np.unique(facts, axis=0, return_counts=True)
    return _Axis(
        first=kinds[:, 0],
        last=kinds[:, 1],
        exists=kinds[:, 2:],
        count=count,
    )


def _all_bits(size: int) -> np.ndarray:
    """The bits of all numbers below ``2**size``, lowest first: bool ``[2**size, size]``."""
    numbers = np.arange(2**size)[:, None]
    return ((numbers >> np.arange(size)) & 1).astype(bool)


def _visible(
    bits: np.ndarray, vertical: _Axis, horizontal: _Axis
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the patterns that each kind of cell can see.

    Args:
        bits: bool ``[s, kh, kw]``.
        vertical: kinds of cells from top to bottom.
        horizontal: kinds of cells from left to right.

    Returns:
        kind along the vertical axis, kind along the horizontal axis, and pattern; each ``[r]``.
    """
    rows = []
    kinds = itertools.product(enumerate(vertical.exists), enumerate(horizontal.exists))
    for (i, above), (j, beside) in kinds:
        missing = ~np.outer(above, beside)
        needs_missing = (bits & missing).any((1, 2))
        visible = np.flatnonzero(~needs_missing)
        row_kind = np.full(len(visible), i)
        column_kind = np.full(len(visible), j)
        rows.append(np.stack([row_kind, column_kind, visible]))
    row_kind, column_kind, pattern = np.concatenate(rows, 1)
    return row_kind, column_kind, pattern


def _sides(
    first: Cells,
    bits: np.ndarray,
    pattern: np.ndarray,
    kinds: tuple[np.ndarray, np.ndarray],
    axes: tuple[_Axis, _Axis],
) -> tuple[Side, Side, Side, Side]:
    """The four sides of the rows: right, left, bottom, top.

    Args:
        first: the first stage.
        bits: bool ``[s, kh, kw]``.
        pattern: ``[r]``.
        kinds: each ``[r]``, the kind of cell along the vertical and along the horizontal axis.
        axes: the vertical and the horizontal axis.
    """
    h, w, _ = first.patch
    pool = first.pool
    pixels = np.arange(np.prod(first.patch)).reshape(first.patch)
    eye = np.eye(pixels.size, dtype=np.float32)
    row_kind, column_kind = kinds
    vertical, horizontal = axes

    def side(table, shared_bits, sign, missing, shared_pixels):
        patterns = 2 ** shared_bits[0].size
        code = _code(shared_bits)[pattern]
        line_kind = column_kind if table else row_kind
        return Side(
            table=table,
            entry=line_kind * patterns + code,
            sign=np.float32(sign) * ~missing,
            pixels=eye[shared_pixels.ravel()],
        )

    is_last_column = horizontal.last[column_kind]
    is_first_column = horizontal.first[column_kind]
    is_last_row = vertical.last[row_kind]
    is_first_row = vertical.first[row_kind]
    right_pixels = pixels[:, pool:]
    left_pixels = pixels[:, : w - pool]
    bottom_pixels = pixels[pool:]
    top_pixels = pixels[: h - pool]
    return (
        side(0, bits[:, :, 1:], 1.0, is_last_column, right_pixels),
        side(0, bits[:, :, :-1], -1.0, is_first_column, left_pixels),
        side(1, bits[:, 1:], 1.0, is_last_row, bottom_pixels),
        side(1, bits[:, :-1], -1.0, is_first_row, top_pixels),
    )


def _code(bits: np.ndarray) -> np.ndarray:
    """Read bits as numbers, lowest first: ``[s, ...]`` to ``[s]``."""
    flat = bits.reshape(len(bits), -1)
    return flat @ (1 << np.arange(flat.shape[1]))
