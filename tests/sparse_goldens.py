"""Cases of sparse training: golden ones kept here, larger ones where the shared packs are, and drawn ones."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDENS, SHARED
from hypothesis import strategies as st

from research.layers.masked import Masked

HERE = GOLDENS / "sparse"


def about(name: str):
    """The JSON file ``name``; the test is skipped where it is absent."""
    for folder in (HERE, SHARED / "golden" / "sparse"):
        if (folder / f"{name}.json").exists():
            return json.loads((folder / f"{name}.json").read_text())
    pytest.skip(f"{name} is not here; set RESEARCH_SHARED to the folder of shared packs")


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """A case: what its JSON file says, and its arrays."""
    said = about(name)
    folder = HERE if (HERE / f"{name}.npz").exists() else SHARED / "golden" / "sparse"
    with np.load(folder / f"{name}.npz") as arrays:
        return said, {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def replay(tensors: list, stored: list[torch.Tensor]):
    """Growth that gives each tensor its ``stored`` units."""
    return lambda tensor, count: stored[tensors.index(tensor)]


def tensors_of(arrays, prefix, layers) -> list[Masked]:
    """The tensors before an event, with the invariant W = 0 outside the mask."""
    tensors = []
    for layer in range(layers):
        mask = arrays[f"{prefix}l{layer}_mask_before"].bool()
        tensors.append(Masked(arrays[f"{prefix}l{layer}_w"].clone(), mask.clone()))
        tensors[-1].apply()
    return tensors


@st.composite
def networks(draw):
    """A few sparse tensors of random shapes, granularities, memory formats and densities."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    tensors = []
    for _ in range(draw(st.integers(1, 4))):
        kernel = draw(st.booleans())
        shape = draw(st.sampled_from([(6, 4, 3, 3), (5, 7, 1, 1), (3, 2, 2, 5)] if kernel else [(9, 14), (4, 5)]))
        weight = torch.randn(shape, generator=generator)
        granularity = draw(st.integers(1, 4)) if kernel else 2
        mask = torch.rand(shape[:granularity], generator=generator) < draw(st.sampled_from([0, 0.1, 0.5, 0.95, 1]))
        if kernel and draw(st.booleans()):
            weight = weight.to(memory_format=torch.channels_last)
            mask = mask.to(memory_format=torch.channels_last) if granularity == 4 else mask
        tensors.append(Masked(weight, mask, f"t{len(tensors)}"))
        tensors[-1].apply()
    return tensors, generator
