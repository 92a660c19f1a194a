"""Many dense MLPs of one width and depth as one computation, forward and backward.

N networks read inputs x (K, B, F): K batches of B samples, each for N / K networks in a row, so that networks which
share their batches (K = 1) share one matrix product in layer 0. Weights are (N, out, in), biases (N, out), what layers
put out is (N, out, B).

All values that layers read lie in one buffer V (N, 2 (d-1) w + 1, B): s_0 .. s_{d-2}, then act(s_0) .. act(s_{d-2}),
then a row of zeros. The input of a layer is a choice of rows of V: from the second half for layers 2 .. d-2, which read
through the activation, from the first for layers 1 and d-1, which do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from research.models.dense_mlp import DenseMLP

# act'(h), given act(h)
SLOPES = {nn.ELU: lambda a: (a + 1).clamp_(max=1), nn.ReLU: lambda a: (a > 0).to(a.dtype)}


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """(N, *largest size of each dimension): ``tensors`` on top of each other, smaller ones padded with zeros."""
    sizes = [max(lengths) for lengths in zip(*(t.shape for t in tensors), strict=True)]
    stacked = tensors[0].new_zeros(len(tensors), *sizes)
    for layer, tensor in zip(stacked, tensors, strict=True):
        part(layer, tensor.shape).copy_(tensor)
    return stacked


def part(layer: Tensor, shape: torch.Size) -> Tensor:
    """A view of one of the stacked tensors without its padding."""
    return layer[tuple(map(slice, shape))]


class StackedLinear(nn.Module):
    """Weights (N, out, in) and biases (N, out) of N layers, padded with zeros where they read less."""

    def __init__(self, layers: Sequence[nn.Linear]):
        super().__init__()
        self.weight = nn.Parameter(stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(stack([layer.bias.detach() for layer in layers]))


class StackedMLP(nn.Module):
    """N networks as one, beginning as ``models``; parameters have the names they have there.

    The networks may differ in weights, links and number of links; width, depth, activation, inputs and classes are
    the same. In place of a link that a network lacks, its layer reads the row of zeros: the weight begins at 0, its
    gradient is 0, and so it stays 0.
    """

    def __init__(self, models: Sequence[DenseMLP]):
        super().__init__()
        first = models[0]
        (cell,) = first.cells
        self.width, self.depth, self.act = cell.width, cell.depth, first.act
        self.layers = nn.ModuleList(StackedLinear(layers) for layers in zip(*(m.layers for m in models), strict=True))
        for i in range(1, self.depth):
            self.register_buffer(f"rows_{i}", self._rows(i, models))

    def _rows(self, i: int, models: Sequence[DenseMLP]) -> Tensor:
        """The rows of V (N, R, B), seen as (N R, B), that layer i of every network reads: int64 (N (w + t_i),)."""
        w, zeros = self.width, 2 * (self.depth - 1) * self.width
        first = 0 if i in (1, self.depth - 1) else (self.depth - 1) * w
        reads = torch.full((len(models), self.layers[i].weight.shape[2]), zeros)
        reads[:, :w] = torch.arange((i - 1) * w, i * w) + first
        for read, model in zip(reads, models, strict=True):
            if i > 1:
                links = getattr(model, f"links_{i}").cpu()
                read[w : w + len(links)] = (i - 2 - links // w) * w + links % w + first
        return (
            (reads + torch.arange(len(models))[:, None] * (zeros + 1)).flatten().to(models[0].layers[0].weight.device)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, B) of inputs (K, B, F); networks k N / K to (k + 1) N / K - 1 read batch k."""
        rows = [getattr(self, f"rows_{i}") for i in range(1, self.depth)]
        weights, biases = ([getattr(layer, name) for layer in self.layers] for name in ("weight", "bias"))
        return _Forward.apply(x, self.act, rows, *weights, *biases)


class _Forward(torch.autograd.Function):
    """The whole network as one operation: autograd would keep and clear a copy of V for every layer."""

    @staticmethod
    def forward(ctx, x: Tensor, act: nn.Module, rows: list[Tensor], *parameters: Tensor) -> Tensor:
        d = len(rows) + 1
        weights, biases = parameters[:d], parameters[d:]
        (N, w, F), (K, B, _) = weights[0].shape, x.shape
        V = x.new_empty(N, 2 * (d - 1) * w + 1, B)
        V[:, -1] = 0
        h = (weights[0].view(K, -1, F) @ x.mT).view(N, w, B) + biases[0][:, :, None]
        s, inputs = act(h), []
        for i in range(1, d):
            V[:, (i - 1) * w : i * w] = s
            V[:, (d + i - 2) * w : (d + i - 1) * w] = act(s)
            inputs.append(V.view(-1, B).index_select(0, rows[i - 1]).view(N, -1, B))
            s = torch.baddbmm(biases[i][:, :, None], weights[i], inputs[-1])
        ctx.slope, ctx.rows = SLOPES[type(act)], rows
        ctx.save_for_backward(x, V, *inputs, *weights)
        return s

    @staticmethod
    @once_differentiable
    def backward(ctx, dh: Tensor) -> tuple[Tensor | None, ...]:
        d = len(ctx.rows) + 1
        x, V, *saved = ctx.saved_tensors
        inputs, weights = [None, *saved[: d - 1]], saved[d - 1 :]
        (_, w, _), (K, B, _) = weights[0].shape, x.shape
        dV, d_weights, d_biases = torch.zeros_like(V), [None] * d, [None] * d
        for i in range(d - 1, 0, -1):
            d_weights[i], d_biases[i] = dh @ inputs[i].mT, dh.sum(2)
            dV.view(-1, B).index_add_(0, ctx.rows[i - 1], (weights[i].mT @ dh).view(-1, B))
            raw, activated = slice((i - 1) * w, i * w), slice((d + i - 2) * w, (d + i - 1) * w)
            dh = dV[:, raw] + dV[:, activated] * ctx.slope(V[:, activated])
        dh = dh * ctx.slope(V[:, :w])  # s_0 = act(h_0), every other s_i = h_i
        d_weights[0], d_biases[0] = (dh.view(K, -1, B) @ x).view_as(weights[0]), dh.sum(2)
        return None, None, None, *d_weights, *d_biases
