"""Trained networks for inference, in files that other programs read, or where zeros save time or memory.

    dense   the plain network, zeros and tied values written out; any program that knows the network can load it
    csr     linear layers in compressed sparse rows: (out, in) weights as values with int32 columns and row starts.
            Memory in proportion to the non-zeros. On a CPU faster than dense for layers with hundreds of inputs and
            batches from about ten on, slower for small layers and single inputs: tests/benchmarks/sparse_inference.py
    2:4     at most two non-zeros among any four neighbours of a row, in half precision, which NVIDIA's sparse tensor
            cores multiply at up to twice the speed of dense ones; needs such a GPU, and a network that has the pattern
    onnx    the plain network as an ONNX file, for programs without PyTorch

The first three are safetensors with a description in the header, so that :func:`load_export` needs nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from research.checkpoints import weights
from research.config import Config
from research.data.augment import Augment
from research.data.choice import make_loader
from research.data.datasets import arguments, classes_and_shape, describe
from research.errors import Failure, UsageError, nearest
from research.files import replaced
from research.layers.substitute import substitute
from research.models import create_model
from research.plugins.scope import plugged, with_its_plugins
from research.plugins.source import words_for
from research.runs.network import network_of
from research.runs.stored import find_stored
from research.trained.compressed import (
    fits_two_of_four,
    refuse_two_of_four,
    sparse_linears,
    tensors_of,
    to_two_of_four,
    with_compressed,
)
from research.trained.onnx_files import is_ours, require_onnx, run_onnx, write_onnx

Format = Literal["dense", "csr", "2:4", "onnx"]
FORMATS = get_args(Format)
BATCH = 64  # inputs on which an export is compared with its network
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # sums of float32 in another order
CLOSE_IN_HALF = {"rtol": 2e-2, "atol": 2e-2}


@dataclass(frozen=True)
class Export:
    """The file that was written, and how far its outputs are from those of the run's network."""

    path: Path
    format: Format
    bytes: int
    dense_bytes: int  # of the plain weights
    layers: dict[str, float]  # density of every layer that is kept sparse
    difference: float  # largest, over ``inputs``
    inputs: str  # what they were


class Sample(NamedTuple):
    """What a network takes and gives, and inputs (N, C, H, W) to compare two networks on."""

    classes: int
    shape: tuple[int, ...]
    inputs: Tensor
    words: str


def export(run: Path | str, format: Format = "csr", out: Path | str = "") -> Export:
    """Write the best weights of ``run`` for inference to ``out`` (default: ``NAME.FORMAT.…`` in the run's folder).

    The file is read again, and its network compared with the run's own on images of the run's validation set (random
    ones where that is not here), before it gets its name.

    Raises:
        UsageError: no such run, nothing in it that the format could make use of, no GPU for 2:4, no library for onnx,
            or outputs differ.
        Failure: the file cannot be written, or ONNX lacks what the network computes.
    """
    if format not in FORMATS:
        raise UsageError(f"format={format!r}: expected {', '.join(FORMATS)}{nearest(format, FORMATS)}")
    if format == "onnx":
        require_onnx()
    stored = find_stored(Path(run))
    home, kind = stored.path.parent, "onnx" if format == "onnx" else f"{format.replace(':', 'to')}.safetensors"
    path = Path(out or home / f"{home.resolve().name}.{kind}")
    refuse_place(path)
    sample = sample_of(stored.config)
    model = network_of(stored.config, sample.classes, sample.shape, torch.device("cpu"))
    weights.load_into(model, stored.tensors, stored.path)
    model.eval()
    plain = without_methods(model, stored.config, sample.classes, sample.shape)
    layers = kept_sparse(plain, format, str(run))
    try:
        with replaced(path) as part:
            outputs = written(plain, format, layers, description(stored.config, format, sample), part, sample)
            difference = compare(model, outputs, sample.inputs, CLOSE_IN_HALF if format == "2:4" else CLOSE)
    except (OSError, SafetensorError) as error:
        raise Failure(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    dense = sum(tensor.numel() * tensor.element_size() for tensor in plain.state_dict().values())
    return Export(path, format, path.stat().st_size, dense, layers, difference, sample.words)


def refuse_place(path: Path) -> None:
    """Raise UsageError if no export can be written there, or if it would replace another kind of file."""
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder; name a file in it")
    if not os.path.isdir(path.parent) or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent}: cannot be written; give another --out")
    if os.path.exists(path) and not (has_description(path) or path.suffix == ".onnx" and is_ours(path)):
        raise UsageError(f"{path}: exists, and `research export` did not write it; give another --out")


def has_description(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return "research" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


@with_its_plugins
def sample_of(config: Config) -> Sample:
    """What the network of ``config`` takes and gives, with a batch of its validation set; without its data, random."""
    try:
        loader = make_loader(replace(config, device="cpu", processes=1), "val")
    except UsageError:
        classes, shape = classes_and_shape(config.dataset, config.data_args)
        inputs = torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(0))
        return Sample(classes, shape, inputs, f"{BATCH} random inputs, because {config.dataset} is not here")
    try:
        inputs = next(iter(loader))[0][:BATCH].float()
    finally:
        loader.close()
    return Sample(loader.info.classes, loader.info.shape, inputs, f"{len(inputs)} images of {config.dataset}")


def kept_sparse(plain: nn.Module, format: Format, run: str) -> dict[str, float]:
    """The layers whose zeros ``format`` leaves out, with the density of each; UsageError if it is of no use."""
    if format == "csr":
        if not (layers := sparse_linears(plain)):
            raise UsageError(f"{run}: no linear layer has enough zeros for csr; give --format dense")
        return layers
    if format == "2:4":
        refuse_two_of_four(plain, run)
        linears = {name: module for name, module in plain.named_modules() if isinstance(module, nn.Linear)}
        return {name: 0.5 for name, linear in linears.items() if fits_two_of_four(linear)}
    return {}


@with_its_plugins
def description(config: Config, format: Format, sample: Sample) -> dict[str, Any]:
    """What a file says of itself: how its network is made, and what its inputs were normalised with."""
    told = {"format": format, "model": config.model, "model_args": dict(config.model_args)}
    told |= {"substitute": config.substitute, "classes": sample.classes, "shape": list(sample.shape)}
    told |= {"plugin": list(config.plugin)}
    dataset = describe(config.dataset)
    if dataset.kind != "vectors":
        told["mean"], told["std"] = Augment(**arguments(dataset.name, config.data_args)[0]).normalisation(dataset)
    return told


def written(
    plain: nn.Module, format: Format, layers: Mapping[str, float], told: dict[str, Any], path: Path, sample: Sample
) -> Tensor:
    """Write ``plain`` to ``path``, and return the logits (N, classes) of what is read from there."""
    if format == "onnx":
        write_onnx(plain, sample.shape, told, path)
        return run_onnx(path, sample.inputs)
    save_file(tensors_of(plain, layers if format == "csr" else {}), path, {"research": json.dumps(told)})
    network = load_export(path)
    like = next(value for value in network.state_dict().values() if value.is_floating_point())
    with torch.inference_mode():
        return network(sample.inputs.to(like)).float().cpu()


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
    with plugged(words_for(told.get("plugin", ()))):
        model = create_model(told["model"], told["classes"], tuple(told["shape"]), **told["model_args"])
        substitute(model, told["substitute"], tuple(told["shape"]))
    model = with_compressed(model, tensors)
    return to_two_of_four(model) if told["format"] == "2:4" else model.to(device or "cpu")


@torch.no_grad()
def without_methods(model: nn.Module, config: Config, classes: int, shape: tuple[int, ...]) -> nn.Module:
    """The network of ``config`` without its methods, with the effective weights of ``model``."""
    plain = network_of(replace(config, hooks={}), classes, shape, torch.device("cpu"))
    for name, own in plain.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        own.copy_(getattr(model.get_submodule(owner), leaf))  # of tied weights what their banks expand to
    return plain.eval()


@torch.inference_mode()
def compare(model: nn.Module, outputs: Tensor, inputs: Tensor, tolerance: Mapping[str, float]) -> float:
    """The largest difference of ``outputs`` from those of ``model`` for ``inputs``.

    Raises:
        UsageError: it is above the tolerance, taken relative to the largest output.
    """
    expected = model(inputs)
    difference, size = float((expected - outputs).abs().max()), float(expected.abs().max())
    if not difference <= tolerance["atol"] + tolerance["rtol"] * size:
        raise UsageError(
            f"the exported network differs by {difference:.2g} (outputs up to {size:.2g}); nothing is kept"
        )
    return difference
