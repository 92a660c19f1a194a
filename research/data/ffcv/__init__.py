"""FFCV files (.beton): written, verified, read."""
