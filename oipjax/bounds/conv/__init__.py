"""Bounds made for chains of convolutions."""
