"""Data that comes with the package: handwritten digits, and the two generated sets of the NN-Mass studies.

linear and circle (Bhardwaj et al. 2021, "How does topology influence gradient propagation and model performance of
deep networks with DenseNet-type skip connections?"): 120 equal bins over [0, 100), 100 training and 10 test points in
each, sorted by bin; the label is the parity of the segment that a row falls into.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from research.parameters.signatures import Range

BINS = 120
SEED = 0  # of the generated points: the data set is one fixed thing
PER_BIN = {"train": 100, "val": 10}


@dataclass(frozen=True)
class Segments:
    """Arguments of the generated sets."""

    num_seg: Annotated[int, Range(least=1, most=1200), "segments of alternating label along the line or the radius"] = 2


def points(kind: Literal["linear", "circle"], split: str) -> np.ndarray:
    """The points of a generated set: float64 (120 x 100 or 10, 2), sorted by bin, not normalised."""
    random = np.random.Generator(np.random.PCG64([SEED, kind == "circle", split == "val"]))
    width = 100 / BINS
    edges = np.repeat(np.arange(BINS) * width, PER_BIN[split])
    if kind == "linear":
        return np.repeat(edges + width * random.random(len(edges)), 2).reshape(-1, 2)
    inside = np.full(len(edges), np.nan)
    while (left := np.isnan(inside)).any():  # Normal around the bin's centre, drawn again until strictly inside
        drawn = random.normal(0.5, 0.5, left.sum())
        inside[left] = np.where((drawn > 0) & (drawn < 1), drawn, np.nan)
    radius, angle = edges + width * inside, random.uniform(0, 2 * np.pi, len(edges))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def labels(count: int, num_seg: int) -> np.ndarray:
    """Label of row i of ``count``: floor(i / (count / num_seg)) mod 2, in float64 as published; int64 (count,)."""
    return (np.floor(np.arange(count) / (count / num_seg)) % 2).astype(np.int64)


def write_csv(folder: str | Path) -> None:
    """The generated sets as the published files: {train,test}_{linear,circle}.csv, two columns without a header.

    The folder is made; files of these names are replaced.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for kind in ("linear", "circle"):
        for split, name in (("train", "train"), ("val", "test")):
            np.savetxt(Path(folder) / f"{name}_{kind}.csv", points(kind, split), fmt="%.18e", delimiter=",")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: images (1797, 8, 8, 1) uint8, grey levels 0..16 spread over 0..255; labels int64."""
    # read from where the package keeps it: importing sklearn.datasets takes seconds, every time a run starts
    package = importlib.util.find_spec("sklearn").submodule_search_locations[0]
    rows = np.loadtxt(Path(package) / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.int64)
    images = np.rint(rows[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return images[..., None], rows[:, 64]
