"""Trained networks: found, evaluated, counted, exported."""
