"""Notebooks executed with checked parameters."""
