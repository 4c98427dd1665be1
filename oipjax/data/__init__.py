"""Images to train with and to look at."""
