"""Survey, ascend, prove, restart: every map of a layer."""
