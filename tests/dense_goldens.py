"""The MLPs that the published program of NN-Mass stored, and the same functions with neurons in another order."""

import json
import random

import numpy as np
import torch
from conftest import GOLDENS
from torch import nn

from research.models import create_model

GOLDEN = GOLDENS / "nn-mass"
STORED = json.loads((GOLDEN / "ldi_stored_models.json").read_text())


def mlp(row: dict, **args) -> nn.Module:
    own = {name: row[name] for name in ("width", "depth", "tc")}
    return create_model("dense_mlp", row["num_classes"], (row["input_dims"],), **own, **args)


def stored_mlp(row: dict) -> tuple[nn.Module, torch.Tensor]:
    """A network of the goldens, in float64, and its 80 inputs."""
    with np.load(GOLDEN / "ldi_stored_models.npz") as arrays:
        model = mlp(row, act=row["act"], link_seed=0).double()
        state = {}
        for layer in range(row["depth"]):
            state[f"layers.{layer}.weight"] = arrays[f"{row['name']}/W{layer}"]
            state[f"layers.{layer}.bias"] = arrays[f"{row['name']}/b{layer}"]
            if layer >= 2:
                state[f"links_{layer}"] = arrays[f"{row['name']}/links{layer}"]
        model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        x = arrays["x_circle"] if row["input"] == "x_circle" else arrays["x_mnist_u8"] / 255
        return model, torch.from_numpy(x).double()


def renumbered(state: dict, width: int, depth: int, rng: random.Random) -> dict:
    """The weights and links of the same function after the neurons of one hidden layer changed places."""
    state = {name: value.clone() for name, value in state.items()}
    hidden = rng.randrange(depth - 1)
    order = torch.tensor(rng.sample(range(width), width))  # new place i holds the neuron of old place order[i]
    for name in ("weight", "bias"):
        state[f"layers.{hidden}.{name}"] = state[f"layers.{hidden}.{name}"][order]
    reader = state[f"layers.{hidden + 1}.weight"]
    reader[:, :width] = reader[:, order]
    for layer in range(hidden + 2, depth):
        links = state[f"links_{layer}"]
        for k, link in enumerate(links.tolist()):
            if layer - 2 - link // width == hidden:
                links[k] = link - link % width + order.tolist().index(link % width)
    return state
