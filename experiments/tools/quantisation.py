"""Codes ``[n, d]`` in a few bits: every component by itself, in steps of equal size."""

from dataclasses import dataclass

import numpy as np

REACHES = tuple(round(0.2 * step, 1) for step in range(5, 31))
"""Half widths of a component's range that `fit` chooses from, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Quantiser:
    """A range for each component, cut into ``2 ** bits`` cells.

    A code is stored as the number of its cell, and read back as the middle of the cell.

    Attributes:
        low: lower end of the range, ``[d]``; a value below it goes into the first cell.
        high: upper end of the range, ``[d]``; a value above it goes into the last cell.
        bits: per component, 1 to 16.
    """

    low: np.ndarray
    high: np.ndarray
    bits: int

    def __post_init__(self):
        if not 1 <= self.bits <= 16:
            raise ValueError(f"bits of a component must be 1 to 16, got {self.bits}")

    @property
    def step(self) -> np.ndarray:
        """Width of a cell, ``[d]``."""
        return (self.high - self.low) / 2**self.bits

    def to_cells(self, codes: np.ndarray) -> np.ndarray:
        """Numbers of cells, ``uint16 [n, d]``: the stored values."""
        step = np.where(self.step > 0, self.step, 1)
        cells = np.floor((codes - self.low) / step)
        return np.clip(cells, 0, 2**self.bits - 1).astype(np.uint16)

    def from_cells(self, cells: np.ndarray) -> np.ndarray:
        """The codes that are read back, ``float32 [n, d]``."""
        return (self.low + (cells + 0.5) * self.step).astype(np.float32)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Codes after they were stored and read back."""
        return self.from_cells(self.to_cells(codes))


def fit(codes: np.ndarray, bits: int) -> Quantiser:
    """The quantiser for codes like these.

    A component's range is its mean and a number of standard deviations to both sides. The number
    is the one that makes the squared error of these codes least: a compromise between the width of
    the cells and the values outside the range.

    Args:
        codes: of training images.
        bits: per component.
    """
    mean = codes.mean(0, dtype=np.float64)
    std = codes.std(0, dtype=np.float64)
    errors = []
    for reach in REACHES:
        quantiser = Quantiser(mean - reach * std, mean + reach * std, bits)
        errors.append(np.square(quantiser(codes) - codes).mean(0))
    best = np.argmin(errors, axis=0)
    reach = np.array(REACHES)[best]
    return Quantiser(mean - reach * std, mean + reach * std, bits)
