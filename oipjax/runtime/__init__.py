"""One batch size, one compiled program, a stated precision."""
