"""Scores of a network at its initial weights, from one forward or backward pass: what costs nothing beside training.

A score is a number of a network by which others have ranked networks before training any; larger is meant to be better.
Every function leaves weights, gradients, statistics of normalisation and mode of the network as they were.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode

from research.layers.masked import masked_weights

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
ATEN = torch.ops.aten
GATES = frozenset(
    {ATEN.relu, ATEN.relu_, ATEN.leaky_relu, ATEN.leaky_relu_, ATEN.elu, ATEN.elu_, ATEN.hardtanh, ATEN.hardtanh_}
    | {ATEN.hardswish, ATEN.hardswish_, ATEN.silu, ATEN.silu_, ATEN.gelu}
)
"""Activations whose input's sign says whether a unit is on."""


def gradient_norm(model: nn.Module, x: Tensor, targets: Tensor) -> float:
    """Sum over weights of the norm of the gradient of cross-entropy (Abdelfattah et al. 2021, section 3.1).

    In training mode at inputs ``x`` (B, ...) with classes ``targets`` (B) int64. Vectors (biases, normalisation) do not
    count, as there; of weights under a mask, those that live.
    """
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        scratch = copy.deepcopy(model).train().requires_grad_(False)
        weights = [p.requires_grad_() for p in _trained(model, scratch) if p.ndim > 1]
        loss = F.cross_entropy(scratch(x), targets)
        grads = dict(zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True))
    for tensor in masked_weights(scratch):
        if grads.get(tensor.weight) is not None:
            grads[tensor.weight] = grads[tensor.weight] * tensor.broadcast
    return float(sum(grad.norm() for grad in grads.values() if grad is not None))


def synflow(model: nn.Module, input_shape: tuple[int, ...]) -> float:
    """log10 of SynFlow, the sum over parameters of θ ∂R/∂θ, R the sum of outputs (Tanaka et al. 2020, equation 2).

    Of a network whose parameters and constants are replaced by their absolute values, at one input of ones of
    ``input_shape`` (C, H, W), in float64; normalisation does nothing, as where SynFlow ranks networks (Abdelfattah et
    al. 2021, section 3.2). It is the sum over all paths of the product of their weights, so a wide or deep network
    scores higher by that alone. -inf where no path reaches an output.
    """
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        scratch = copy.deepcopy(model).double().eval().requires_grad_(False)
        with torch.no_grad():
            for tensor in [*scratch.parameters(), *scratch.buffers()]:
                if tensor.is_floating_point():
                    tensor.abs_()
        for module in scratch.modules():
            if isinstance(module, NORMS):
                module.register_forward_hook(_as_it_came)
        parameters = [p.requires_grad_() for p in _trained(model, scratch)]
        device = parameters[0].device
        out = scratch(torch.ones(1, *input_shape, dtype=torch.float64, device=device)).sum()
        grads = torch.autograd.grad(out, parameters, allow_unused=True)
        score = sum((p * g).sum() for p, g in zip(parameters, grads, strict=True) if g is not None)
        return float(torch.as_tensor(score).detach().log10())


def naswot(model: nn.Module, x: Tensor) -> float:
    """log |det K| of the kernel of activation patterns (Mellor et al. 2021, equation 2).

    K[i, j] counts the units that are on for both inputs or off for both, over all activations of the network that have
    a kink or gate at 0, at inputs ``x`` (B, ...) in training mode. -inf where two inputs cannot be told apart.
    """
    codes = _Codes(len(x))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        scratch = copy.deepcopy(model).train()
        with codes:
            scratch(x)
    if torch.linalg.matrix_rank(codes.kernel, hermitian=True) < len(x):  # fewer units than inputs, for one
        return float("-inf")
    return float(torch.linalg.slogdet(codes.kernel).logabsdet)


class _Codes(TorchDispatchMode):
    """Sums up which inputs agree in which units, wherever an activation is computed, as a module or a function."""

    def __init__(self, inputs: int):
        super().__init__()
        self.kernel = torch.zeros(inputs, inputs, dtype=torch.float64)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket in GATES and args[0].ndim > 1 and len(args[0]) == len(self.kernel):
            sign = torch.where(args[0].detach() > 0, 1.0, -1.0).flatten(1)  # sums of ±1 are exact below 2**24 units
            agree = (sign @ sign.T + sign.shape[1]) / 2
            self.kernel += agree.to(self.kernel)
        return func(*args, **(kwargs or {}))


def _trained(model: nn.Module, scratch: nn.Module) -> list[nn.Parameter]:
    """The parameters of ``scratch``, a copy, that are trained in ``model``."""
    named = dict(scratch.named_parameters())
    return [named[name] for name, parameter in model.named_parameters() if parameter.requires_grad]


def _as_it_came(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    return args[0]
