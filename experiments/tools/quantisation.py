"""Codes ``[n, d]`` in a few bits: every component by itself, in steps of equal size."""

from dataclasses import dataclass

import numpy as np

REACHES = tuple(round(0.2 * step, 1) for step in range(5, 31))
"""Half widths of a component's range that `fit` chooses from, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Quantiser:
    """A range for each component, cut into ``2 ** bits`` cells; a code becomes its cell's number, then its middle.

    Attributes:
        low, high: ends of the range, ``[d]``; what lies outside goes into the last cell.
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
        """Numbers of cells, ``uint16 [n, d]``: what is stored."""
        step = np.where(self.step > 0, self.step, 1)
        return np.clip(np.floor((codes - self.low) / step), 0, 2**self.bits - 1).astype(np.uint16)

    def from_cells(self, cells: np.ndarray) -> np.ndarray:
        """The codes that are read back, ``float32 [n, d]``."""
        return (self.low + (cells + 0.5) * self.step).astype(np.float32)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """What is read back of codes that were stored."""
        return self.from_cells(self.to_cells(codes))


def fit(codes: np.ndarray, bits: int) -> Quantiser:
    """The quantiser for codes like these.

    A component's range is its mean and so many standard deviations to both sides as make the
    squared error of these codes least: a compromise between the cells' width and what is cut off.

    Args:
        codes: of training images.
        bits: per component.
    """
    mean, std = codes.mean(0, dtype=np.float64), codes.std(0, dtype=np.float64)
    tried = [Quantiser(mean - reach * std, mean + reach * std, bits) for reach in REACHES]
    errors = np.array([np.square(one(codes) - codes).mean(0) for one in tried])
    reach = np.array(REACHES)[errors.argmin(0)]
    return Quantiser(mean - reach * std, mean + reach * std, bits)
