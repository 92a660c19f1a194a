"""Frame -> Figure: one function a figure, one style."""

from research.figures.correlation import multiplier_over_epochs, nmi_histogram, nmi_matrices, tap_profile
from research.figures.curves import loss_curves
from research.figures.style import render, save

__all__ = ["loss_curves", "multiplier_over_epochs", "nmi_histogram", "nmi_matrices", "render", "save", "tap_profile"]
