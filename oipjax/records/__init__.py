"""A finished study on disk."""
