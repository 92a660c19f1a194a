"""Many runs: grids and populations."""
