"""Golden cases of sparse training: those kept here, and the larger ones where the shared packs are."""

import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, SHARED

HERE = REPOSITORY / "tests" / "golden" / "sparse"


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
