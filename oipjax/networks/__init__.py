"""Networks in Flax NNX, and the way from a folder on disk to a `Model`."""
