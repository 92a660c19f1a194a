"""One run on disk: its files, how it stands, its metrics and random streams."""
