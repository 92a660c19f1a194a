"""Frame -> Figure: one function a figure, one style."""

from research.figures.style import render, save

__all__ = ["render", "save"]
