"""Bounds from linear relaxations of a network."""
