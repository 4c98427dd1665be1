"""Bounds from linear relaxations of a network."""

from oipjax.bounds.linear.exact import Optimum, best_images

__all__ = ["Optimum", "best_images"]
