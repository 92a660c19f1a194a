"""Sparse networks for inference, where zeros save time or memory; while training, masks only simulate sparsity.

    dense   the plain network, zeros and tied values written out; any program that knows the network can load it
    csr     linear layers in compressed sparse rows: (out, in) weights as values with int32 columns and row starts.
            Memory in proportion to the non-zeros. On a CPU faster than dense for layers with hundreds of inputs and
            batches from about ten on, slower for small layers and single inputs: tests/benchmarks/sparse_inference.py
    2:4     at most two non-zeros among any four neighbours of a row, in half precision, which NVIDIA's sparse tensor
            cores multiply at up to twice the speed of dense ones; needs such a GPU, and a network that has the pattern

A file is safetensors with a description in its header, so that :func:`load_export` needs nothing else.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from research.checkpoints import weights
from research.config import Config
from research.data.datasets import classes_and_shape
from research.errors import Failure, UsageError, nearest
from research.files import replaced
from research.layers.substitute import substitute
from research.models import create_model
from research.runs.network import network_of
from research.runs.stored import find_stored

warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")

Format = Literal["dense", "csr", "2:4"]
FORMATS = get_args(Format)
PARTS = ("crow", "col", "values")
BATCH = 64  # random inputs on which an export is compared with its network
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # sums of float32 in another order
CLOSE_IN_HALF = {"rtol": 2e-2, "atol": 2e-2}


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


@dataclass(frozen=True)
class Export:
    """The file that was written, and how far its outputs are from those of the run's network."""

    path: Path
    format: Format
    bytes: int
    dense_bytes: int  # of the plain weights
    layers: dict[str, float]  # density of every layer that is kept sparse
    difference: float  # largest, over random inputs


def export(run: Path | str, format: Format = "csr", out: Path | str = "") -> Export:
    """Write the best weights of ``run`` for inference to ``out`` (default: ``NAME.FORMAT.safetensors`` here).

    The file is read again, and its network compared with the run's own on random inputs, before it gets its name.

    Raises:
        UsageError: no such run, nothing in it that the format could make use of, no GPU for 2:4, or outputs differ.
    """
    if format not in get_args(Format):
        raise UsageError(
            f"format={format!r}: expected {', '.join(get_args(Format))}{nearest(format, get_args(Format))}"
        )
    stored = find_stored(Path(run))
    path = Path(out or f"{stored.path.parent.name}.{format.replace(':', 'to')}.safetensors")
    refuse_place(path)
    classes, shape = classes_and_shape(stored.config.dataset, stored.config.data_args)
    model = network_of(stored.config, classes, shape, torch.device("cpu"))
    weights.load_into(model, stored.tensors, stored.path)
    model.eval()
    plain = without_methods(model, stored.config, classes, shape)
    layers = sparse_linears(plain)
    if format == "csr" and not layers:
        raise UsageError(f"{run}: no linear layer has enough zeros for csr; give --format dense")
    if format == "2:4":
        refuse_two_of_four(plain, str(run))
        layers = {
            name: 0.5
            for name, module in plain.named_modules()
            if isinstance(module, nn.Linear) and fits_two_of_four(module)
        }
    told = {"format": format, "model": stored.config.model, "model_args": dict(stored.config.model_args)}
    told |= {"substitute": stored.config.substitute, "classes": classes, "shape": list(shape)}
    try:
        with replaced(path) as part:
            save_file(tensors_of(plain, layers if format == "csr" else {}), part, {"research": json.dumps(told)})
            difference = compare(model, load_export(part), shape, CLOSE_IN_HALF if format == "2:4" else CLOSE)
    except (OSError, SafetensorError) as error:
        raise Failure(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    stored = sum(tensor.numel() * tensor.element_size() for tensor in plain.state_dict().values())
    kept = layers if format != "dense" else {}
    return Export(path, format, path.stat().st_size, stored, kept, difference)


def refuse_place(path: Path) -> None:
    """Raise UsageError if no export can be written there, or if it would replace another kind of file."""
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder; name a file in it")
    if not os.path.isdir(path.parent) or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent}: cannot be written; give another --out")
    if os.path.exists(path):
        try:
            with safe_open(path, "pt") as file:
                ours = "research" in (file.metadata() or {})
        except (OSError, SafetensorError):
            ours = False
        if not ours:
            raise UsageError(f"{path}: exists, and `research export` did not write it; give another --out")


def load_export(path: Path | str, device: str = "") -> nn.Module:
    """The network in a file that :func:`export` wrote, for inference, on ``device`` (default: CPU; for 2:4, the GPU).

    Raises:
        UsageError: it is no such file, or needs a GPU that is not there.
    """
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {}).get("research", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: cannot be read as safetensors ({error})") from None
    if not told:
        raise UsageError(f"{path}: was not written by `research export`")
    model = create_model(told["model"], told["classes"], tuple(told["shape"]), **told["model_args"])
    substitute(model, told["substitute"], tuple(told["shape"]))
    compressed = [name.removesuffix(".crow") for name in tensors if name.endswith(".crow")]
    for name in compressed:
        parts = [tensors.pop(f"{name}.{part}") for part in PARTS]
        size = model.get_submodule(name).weight.shape
        tensors[f"{name}.weight"] = torch.sparse_csr_tensor(*parts, size, check_invariants=True).to_dense()
    model.load_state_dict(tensors)
    model.eval().requires_grad_(False)
    for name in compressed:
        replace_module(model, name, CsrLinear.of(model.get_submodule(name)))
    return to_two_of_four(model) if told["format"] == "2:4" else model.to(device or "cpu")


@torch.no_grad()
def without_methods(model: nn.Module, config: Config, classes: int, shape: tuple[int, ...]) -> nn.Module:
    """The network of ``config`` without its methods, with the effective weights of ``model``."""
    plain = network_of(replace(config, hooks={}), classes, shape, torch.device("cpu"))
    for name, own in plain.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        own.copy_(getattr(model.get_submodule(owner), leaf))  # of tied weights what their banks expand to
    return plain.eval()


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


@torch.inference_mode()
def compare(model: nn.Module, exported: nn.Module, shape: tuple[int, ...], tolerance: Mapping[str, float]) -> float:
    """The largest difference of the two networks' outputs for random inputs of ``shape``.

    Raises:
        UsageError: it is above the tolerance, taken relative to the largest output.
    """
    x = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
    like = next(value for value in exported.state_dict().values() if value.is_floating_point())
    expected, outputs = model(x), exported(x.to(like)).float().cpu()
    difference, size = float((expected - outputs).abs().max()), float(expected.abs().max())
    if not difference <= tolerance["atol"] + tolerance["rtol"] * size:
        raise UsageError(
            f"the exported network differs by {difference:.2g} (outputs up to {size:.2g}); nothing is kept"
        )
    return difference


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
