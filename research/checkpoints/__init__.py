"""Weights and states in files, of any origin."""
