"""The training loop, what comes before it, and what survives it."""
