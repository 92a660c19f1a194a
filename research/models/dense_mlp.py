"""The MLP of NN-Mass with random long-range links: Bhardwaj, Li and Marculescu (2021, arXiv 1910.00780).

Layer l reads the w outputs of layer l-1 and, concatenated, t_l outputs picked at random from layers 0 .. l-2.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from research.measures.nn_mass import Cell
from research.parameters.signatures import Range

ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU}


class DenseMLP(nn.Module):
    """``cell.depth`` linear layers with biases; widths, links and NN-Mass are those of the cell.

    With s_0 = act(h_0), s_l = h_l for l > 0, and z_l = [s_{l-1}, linked neurons of s_{l-2}, s_{l-3}, .., s_0]:

        h_0 = W_0 x + b_0,  h_1 = W_1 s_0 + b_1,  h_l = W_l act(z_l) + b_l,  logits h_{d-1} = W_{d-1} z_{d-1} + b_{d-1}

    so the last layer reads its inputs without activation, and links from layer 0 pass through it twice, as published.
    Link k of layer l is neuron k mod w of layer l-2 - k div w; layer l keeps its links, in the order drawn, in the
    int64 buffer ``links_l``. Layers start as PyTorch's.
    """

    def __init__(self, cell: Cell, inputs: int, num_classes: int, act: str, links: Sequence[Sequence[int]]):
        super().__init__()
        self.cells = (cell,)
        self.nn_mass, self.nn_density = cell.mass, cell.density
        self.act = ACTIVATIONS[act]()
        n_in = [inputs, *(cell.width + t for t in cell.links[1:])]
        n_out = [*[cell.width] * (cell.depth - 1), num_classes]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(n_in, n_out, strict=True))
        for i in range(2, cell.depth):
            self.register_buffer(f"links_{i}", torch.tensor(links[i], dtype=torch.int64))

    def states(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For inputs (N, ...): what every layer reads, before activation, and what it puts out before activation.

        That is [x, s_0, z_2, .., z_{d-1}], of shapes (N, columns of W_l), and [h_0, .., h_{d-1}], (N, rows of W_l).
        """
        first, second, *others = self.layers
        x = x.flatten(1)
        h_0 = first(x)
        pool = self.act(h_0)  # s_{l-2}, .., s_0: newest first
        z, h = [x, pool], [h_0, second(pool)]
        for i, layer in enumerate(others, start=2):
            links = getattr(self, f"links_{i}")
            z.append(torch.cat([h[-1], pool.index_select(1, links)], dim=1))
            pool = torch.cat([h[-1], pool], dim=1)
            h.append(layer(z[-1] if layer is self.layers[-1] else self.act(z[-1])))
        return z, h

    def forward(self, x: Tensor) -> Tensor:
        return self.states(x)[1][-1]


def dense_mlp(
    num_classes: int = 10,
    input_shape: tuple[int, ...] = (1, 28, 28),
    /,
    *,
    width: Annotated[int, Range(least=1), "neurons of every hidden layer"] = 8,
    depth: Annotated[int, Range(least=3), "linear layers, the first and the last included"] = 4,
    tc: Annotated[int, Range(least=0), "most long-range links that a layer reads"] = 20,
    act: Annotated[Literal["elu", "relu"], "activation"] = "elu",
    link_seed: Annotated[int | None, Range(least=0), "seed of the links; none = drawn from the run's own"] = None,
) -> DenseMLP:
    """The NN-Mass MLP for vectors, or images flattened."""
    cell = Cell(width, depth, tc)
    drawn = int(torch.randint(2**63 - 1, (), device="cpu"))  # always: so weights are the same whether it is used
    links = cell.draw(random.Random(drawn if link_seed is None else link_seed))
    return DenseMLP(cell, math.prod(input_shape), num_classes, act, links)
