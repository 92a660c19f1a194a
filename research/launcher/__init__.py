"""Start a run on one or many processes, and follow it."""
