"""One run on disk: its files, status, metrics and random streams."""
