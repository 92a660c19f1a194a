"""Frame -> Figure: one function a figure, one style."""

from research.figures.correlation import multipliers_of_epochs, multipliers_of_ks, nmi_matrices, wide_kernels
from research.figures.curves import loss_curves
from research.figures.study import against_k, measuring_cost
from research.figures.style import render, save
from research.figures.taps import (
    horizontal_and_vertical,
    multiplier_over_epochs,
    multiplier_over_k,
    nmi_histogram,
    tap_profile,
)

__all__ = [
    "against_k",
    "horizontal_and_vertical",
    "loss_curves",
    "measuring_cost",
    "multiplier_over_epochs",
    "multiplier_over_k",
    "multipliers_of_epochs",
    "multipliers_of_ks",
    "nmi_histogram",
    "nmi_matrices",
    "render",
    "save",
    "tap_profile",
    "wide_kernels",
]
