"""Bounds made for chains of convolutions."""

from oipjax.bounds.conv.chain import Stack, Stage, recognise

__all__ = ["Stack", "Stage", "recognise"]
