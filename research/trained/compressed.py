"""Layers for inference where zeros save time or memory: linear ones in compressed rows, or of the pattern 2:4."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from research.errors import UsageError

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

PARTS = ("crow", "col", "values")


class CsrLinear(nn.Module):
    """A linear layer for inference with its weight (out, in) as a sparse CSR tensor, and a bias (out,) or none."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> CsrLinear:
        """The non-zeros of ``linear``, with indices in int32."""
        weight = linear.weight.detach().to_sparse_csr()
        narrow = (part.to(torch.int32) for part in (weight.crow_indices(), weight.col_indices()))
        return cls(torch.sparse_csr_tensor(*narrow, weight.values(), weight.shape, check_invariants=True), linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y = torch.mm(self.weight, x.reshape(-1, self.in_features).t()).t()
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)


def sparse_linears(model: nn.Module) -> dict[str, float]:
    """The linear layers with at most half of their weights non-zero, with that share."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    shares = {name: float((linear.weight != 0).float().mean()) for name, linear in linears.items()}
    return {name: share for name, share in shares.items() if share <= 0.5}


def tensors_of(model: nn.Module, compressed: Iterable[str]) -> dict[str, Tensor]:
    """The state of ``model``, the weights of the linear layers ``compressed`` as the three parts of their rows."""
    tensors = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    for name in compressed:
        weight = CsrLinear.of(model.get_submodule(name)).weight
        parts = weight.crow_indices(), weight.col_indices(), weight.values()
        tensors |= {f"{name}.{part}": tensor for part, tensor in zip(PARTS, parts, strict=True)}
        del tensors[f"{name}.weight"]
    return tensors


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def with_compressed(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """``model`` with the state ``tensors`` of :func:`tensors_of`, ready for inference."""
    compressed = [name.removesuffix(".crow") for name in tensors if name.endswith(".crow")]
    for name in compressed:
        parts = [tensors.pop(f"{name}.{part}") for part in PARTS]
        size = model.get_submodule(name).weight.shape
        tensors[f"{name}.weight"] = torch.sparse_csr_tensor(*parts, size, check_invariants=True).to_dense()
    model.load_state_dict(tensors)
    model.eval().requires_grad_(False)
    for name in compressed:
        replace_module(model, name, CsrLinear.of(model.get_submodule(name)))
    return model


# -- 2:4 ----------------------------------------------------------------------------------------------------------


def crowded(weight: Tensor) -> int:
    """Groups of four neighbours in the rows of ``weight`` (out, in), in a multiple of 4, with over two non-zeros."""
    return int(((weight.reshape(-1, 4) != 0).sum(1) > 2).sum())


def fits_two_of_four(linear: nn.Linear) -> bool:
    """Whether PyTorch's kernels take the layer: (out, in) in multiples of 32 and 64, and the pattern."""
    out, n_in = linear.weight.shape
    return out % 32 == 0 and n_in % 64 == 0 and crowded(linear.weight) == 0


def refuse_two_of_four(model: nn.Module, run: str) -> None:
    """Raise UsageError if 2:4 cannot be used here."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        raise UsageError("format=2:4: needs an NVIDIA GPU of compute capability 8.0 or newer; there is none here")
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not any(map(fits_two_of_four, linears)):
        over = sum(crowded(linear.weight) for linear in linears if linear.in_features % 4 == 0)
        raise UsageError(
            f"{run}: none of its {len(linears)} linear layers has a shape in multiples of 32 x 64 and at most 2 "
            f"non-zeros in every 4 of a row ({over:,} groups have more, as under any unstructured mask); use csr"
        )


def to_two_of_four(model: nn.Module) -> nn.Module:
    """``model`` in half precision on the GPU, its fitting linear layers in PyTorch's semi-structured format."""
    from torch.sparse import to_sparse_semi_structured

    refuse_two_of_four(model, "this file")
    model = model.half().cuda()
    for module in model.modules():
        if isinstance(module, nn.Linear) and fits_two_of_four(module):
            module.weight = nn.Parameter(to_sparse_semi_structured(module.weight.detach()), requires_grad=False)
    return model
