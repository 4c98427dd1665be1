"""Figures that would make a study's own file too long."""
