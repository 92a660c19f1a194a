"""Layerwise dynamical isometry (LDI): the singular values of the Jacobians of an MLP's layers before training.

Bhardwaj, Li and Marculescu (2021, arXiv 1910.00780), after Lee et al., "A signal propagation perspective for pruning
neural networks at initialization" (2020). A layer of ``DenseMLP`` maps its input z_l to f(z_l) W_l; the closer to 1 the
mean singular value of its Jacobian, the better gradients pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from research.errors import UsageError, closest
from research.network_protocols import WithStates

Mode = Literal["exact", "reference", "post"]
CHUNK = 10_000  # samples of all networks together that are in memory at once


@dataclass(frozen=True)
class LDI:
    """Singular values of a network's layers over a set of inputs.

    ``mean`` and ``std`` (n-1) are those of all values of a batch, averaged over batches; ``pooled_std`` is that of all
    values at once; ``layers`` has the mean of every layer; there are ``count`` values in all.
    """

    mean: float
    std: float
    pooled_std: float
    layers: tuple[float, ...]
    count: int


def ldi(model: WithStates, x: Tensor, mode: Mode = "exact", batch_size: int = 100) -> LDI:
    """LDI of one network at inputs ``x`` (N, ...): :func:`ldi_many` of one.

    Raises:
        UsageError: as :func:`ldi_many`.
    """
    return ldi_many([model], x, mode, batch_size)[0]


def ldi_many(models: Sequence[WithStates], x: Tensor, mode: Mode = "exact", batch_size: int = 100) -> list[LDI]:
    """LDI of networks of the same shapes, all at once, at inputs ``x`` (N, ...); in float64 but for the states.

    A layer's Jacobian at one sample, with slopes f' and z_l, h_l as ``DenseMLP.states`` has them, D(v) = diag(f'(v)):

    ========= ================ ========== ================== =======
    mode      layer 0          layer 1    layer l            last
    ========= ================ ========== ================== =======
    exact     D(h_0) W_0       W_1        W_l D(z_l)         W_{d-1}
    post      D(h_0) W_0       D(h_1) W_1 D(h_l) W_l         W_{d-1}
    reference D(h_0) W_0       W_1        W_l D(z_l)         W_{d-1} D(z_{d-1})
    ========= ================ ========== ================== =======

    ``exact`` is the derivative of what the network computes. ``reference`` is the published program: of the last layer
    it takes an activation that the network does not have, and its slope of ELU is exp(v) where v > 0 and 0 elsewhere.
    Every Jacobian gives min(rows, columns) singular values.

    Raises:
        UsageError: unknown mode, no samples, batch_size < 1, no networks, or of another kind or different shapes.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"mode={mode!r}: expected {' | '.join(get_args(Mode))}{closest(mode, get_args(Mode))}")
    if others := [type(model).__name__ for model in models if not isinstance(model, WithStates)]:
        raise UsageError(
            f"LDI is defined for dense_mlp, not for {others[0]}; sequence_ldi takes linear layers in a row"
        )
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size}: must be >= 1")
    if not len(x) or not models:
        raise UsageError(f"LDI needs at least one {'network' if len(x) else 'sample'}")
    if len({(type(m), type(m.act), tuple(p.shape for p in m.state_dict().values())) for m in models}) != 1:
        raise UsageError("LDI of several networks at once needs networks of one width, depth, tc and activation")
    with torch.no_grad():
        chunks = [singular_values(models, part, mode) for part in x.split(max(1, CHUNK // len(models)))]
        values = [torch.cat(layer, dim=1) for layer in zip(*chunks, strict=True)]
        batch = torch.cat(values, dim=2).split(batch_size, dim=1)
        means = torch.stack([v.flatten(1).mean(1) for v in batch]).mean(0)
        stds = torch.stack([v.flatten(1).std(1) for v in batch]).mean(0)
        pooled = torch.cat(values, dim=2).flatten(1).std(1)
        layers = torch.stack([v.mean((1, 2)) for v in values], dim=1)
    count = sum(v[0].numel() for v in values)
    columns = (means.tolist(), stds.tolist(), pooled.tolist(), layers.tolist())
    return [LDI(mean, std, p, tuple(each), count) for mean, std, p, each in zip(*columns, strict=True)]


@torch.no_grad()
def sequence_ldi(model: nn.Sequential, x: Tensor) -> LDI:
    """LDI of linear layers, ReLU and batch norm in a row, such as ``mnist_mlp``, at inputs ``x`` (N, ...), one batch.

    Masked weights count with their zeros. A layer's Jacobian at one sample is diag(b) W D(h): h is what the ReLU before
    it sees and D its slope (the first layer has none); b = gamma / sqrt(variance + eps) of the batch norm behind it,
    whose statistics over ``x`` are taken as constants. In float64.

    Raises:
        UsageError: it is no sequence, or has a layer of another kind.
    """
    if not isinstance(model, nn.Sequential):
        raise UsageError(f"LDI of a sequence needs an nn.Sequential, not {type(model).__name__}")
    values: list[Tensor] = []
    linear, slope, x = None, None, x.double()
    for module in [*model, None]:  # a layer is done once it is known what follows
        scale = None
        if isinstance(module, nn.BatchNorm1d):
            scale = module.weight.double() / (x.var(0, unbiased=False) + module.eps).sqrt()
            x = (x - x.mean(0)) * scale + module.bias
        if linear is not None:
            weight = linear.weight.double() if scale is None else linear.weight.double() * scale[:, None]
            found = scaled_svdvals(weight[None], cols=None if slope is None else slope[None])
            values.append(found.expand(1, len(x), -1))
            linear, slope = None, None
        if isinstance(module, nn.Linear):
            linear, x = module, nn.functional.linear(x, module.weight.double(), _double(module.bias))
        elif isinstance(module, nn.ReLU):
            slope, x = (x > 0).double(), x.relu()
        elif isinstance(module, nn.Flatten):
            x = x.flatten(1)
        elif module is not None and scale is None:
            raise UsageError(f"LDI is defined for linear layers, ReLU and batch norm, not for {type(module).__name__}")
    every = torch.cat(values, dim=2)
    std = every.std().item()
    return LDI(every.mean().item(), std, std, tuple(v.mean().item() for v in values), every.numel())


def _double(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.double()


def singular_values(models: Sequence[WithStates], x: Tensor, mode: Mode) -> list[Tensor]:
    """Singular values of every layer's Jacobian, (models, N, min(rows, columns)) in float64; see :func:`ldi_many`."""
    template = _States(models[0])
    state, buffers = stack_module_state([_States(model) for model in models])
    x = x.to(state["mlp.layers.0.weight"])
    z, h = vmap(lambda *own: functional_call(template, own, (x,)))(state, buffers)
    slope = released_slope if mode == "reference" else true_slope
    last, act, found = len(h) - 1, models[0].act, []
    for layer in range(len(h)):
        rows = cols = None
        if layer == 0 or (mode == "post" and layer < last):
            rows = slope(act, h[layer].double())
        elif mode != "post" and (1 < layer < last or (mode == "reference" and layer == last)):
            cols = slope(act, z[layer].double())
        values = scaled_svdvals(state[f"mlp.layers.{layer}.weight"].double(), rows, cols)
        found.append(values.expand(len(models), len(x), -1))
    return found


class _States(nn.Module):
    def __init__(self, mlp: WithStates):
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.mlp.states(x)


def true_slope(act: nn.Module, v: Tensor) -> Tensor:
    """f'(v): of ELU 1 for v >= 0, else exp(v); of ReLU 1 for v > 0, else 0."""
    return v.clamp(max=0).exp() if isinstance(act, nn.ELU) else (v > 0).to(v.dtype)


def released_slope(act: nn.Module, v: Tensor) -> Tensor:
    """The slope in the published program: of ELU exp(v) for v > 0, else 0."""
    return torch.where(v > 0, v.exp(), 0.0) if isinstance(act, nn.ELU) else true_slope(act, v)


def scaled_svdvals(w: Tensor, rows: Tensor | None = None, cols: Tensor | None = None) -> Tensor:
    """Singular values of diag(rows) W diag(cols), ascending, for W (M, out, in) and one of the two (M, N, out or in).

    Shape (M, N, min(out, in)), or (M, 1, ..) for W alone. They are the roots of the eigenvalues of J J^T on its smaller
    side, which needs no J: scales on that side multiply W W^T, and scales on the other are summed over. In float64,
    this is exact to 1e-8 of the largest value; where eigenvalues fail, J itself is decomposed.
    """
    if w.shape[1] > w.shape[2]:
        w, rows, cols = w.mT, cols, rows
    m, small, large = w.shape
    if cols is not None:
        products = (w[:, :, None] * w[:, None]).view(m, small * small, large)
        gram = (cols.square() @ products.mT).view(m, -1, small, small)
    else:
        gram = (w @ w.mT)[:, None]
        if rows is not None:
            gram = gram * rows[..., None] * rows[..., None, :]
    try:
        values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    except torch.linalg.LinAlgError:  # no convergence: which matrix is at fault is not told
        values = torch.full_like(gram[..., 0], torch.nan)
    failed = values.isnan().any(-1)
    if failed.any():
        j = w[:, None] * (1.0 if rows is None else rows[..., None]) * (1.0 if cols is None else cols[..., None, :])
        values[failed] = torch.linalg.svdvals(j[failed]).flip(-1)
    return values
