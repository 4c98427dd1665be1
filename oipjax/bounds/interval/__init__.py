"""Enclosures of every value of a network, for all images at once."""
