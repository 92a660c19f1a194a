"""What is measured of a network: pure functions of tensors or modules, used by hooks and by analysis alike."""
