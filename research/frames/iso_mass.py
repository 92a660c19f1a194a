"""Networks of equal NN-Mass, found and compared without training: closed forms, and singular values at initialisation.

Bhardwaj, Li and Marculescu (2021, arXiv 1910.00780).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from research.measures.cost import count
from research.measures.ldi import Mode, singular_values
from research.measures.nn_mass import Cell, tc_for_mass
from research.models import create_model

CIFAR_FAMILIES = {  # mass -> layers of a cell -> tc of the three cells of 32, 64 and 128 channels
    300: {8: (21, 42, 66), 10: (22, 44, 69), 13: (23, 46, 72), 16: (23, 46, 72)},
    526: {8: (38, 76, 119), 10: (39, 78, 122), 13: (40, 80, 125), 20: (41, 82, 128)},
}


def iso_mass_curves(masses: Sequence[float], width: int, depths: Iterable[int]) -> pd.DataFrame:
    """The cap that gives an MLP of each depth about each mass, where there is one: mass, depth, tc, nn_mass."""
    found = [
        {
            "mass": mass,
            "depth": depth,
            "tc": (tc := tc_for_mass(mass, width, depth)),
            "nn_mass": Cell(width, depth, tc).mass,
        }
        for mass in masses
        for depth in depths
        if mass <= width * depth
    ]
    return pd.DataFrame(found)


def cifar_families(families: Mapping[int, Mapping[int, Sequence[int]]] = CIFAR_FAMILIES) -> pd.DataFrame:
    """CIFAR networks of equal masses, 10 classes: network, mass, cell_depth, tc, nn_mass, params."""
    rows = []
    for mass, members in families.items():
        for depth, tc in members.items():
            for name in ("regular_dense", "dense_depth"):
                model = create_model(name, cell_depth=depth, tc=list(tc))
                params = sum(p.numel() for p in model.parameters())
                rows.append(
                    {
                        "network": name,
                        "mass": mass,
                        "cell_depth": depth,
                        "tc": tc,
                        "nn_mass": model.nn_mass,
                        "params": params,
                    }
                )
    return pd.DataFrame(rows)


def mobilenets(width_mults: Sequence[float], image_size: int = 224) -> pd.DataFrame:
    """MobileNetV2 at these widths and, deeper, at 1.1: layout, width_mult, nn_mass, params, mult_adds of one image."""
    rows = []
    for layout, width_mult in [*(("published", width) for width in width_mults), ("compressed", 1.1)]:
        model = create_model("mobilenet_v2", width_mult=width_mult, layout=layout)
        cost = count(model, (3, image_size, image_size))
        rows.append(
            {
                "layout": layout,
                "width_mult": width_mult,
                "nn_mass": model.nn_mass,
                "params": cost.params,
                "mult_adds": cost.mult_adds,
            }
        )
    return pd.DataFrame(rows)


def initial_values(
    x: Tensor,
    masses: Sequence[float] = (0, 20, 50),
    depths: Sequence[int] = (8, 24),
    width: int = 8,
    inits: int = 8,
    mode: Mode = "exact",
) -> dict[int, dict[float, np.ndarray]]:
    """Singular values of all layers' Jacobians of new MLPs at inputs ``x`` (N, ...): depth -> NN-Mass -> values.

    The caps are those that come closest to ``masses``. Values of all layers, inputs and ``inits`` networks together,
    float64; initialisation i has seed i.
    """
    found: dict[int, dict[float, np.ndarray]] = {}
    for depth in depths:
        for mass in masses:
            tc, models = tc_for_mass(mass, width, depth), []
            for seed in range(inits):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    models.append(create_model("dense_mlp", 10, tuple(x.shape[1:]), width=width, depth=depth, tc=tc))
            with torch.no_grad():
                values = [each.flatten() for each in singular_values(models, x, mode)]
            found.setdefault(depth, {})[models[0].nn_mass] = torch.cat(values).numpy()
    return found
