"""Figures and text as dated entries of the research log."""
