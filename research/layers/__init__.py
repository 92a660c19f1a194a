"""What stands in for a convolution, masks and tied weights, and what layers cost."""
