"""Which images are allowed, and how they are parameterised."""
