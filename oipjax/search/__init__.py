"""From a key to good images of given targets."""
