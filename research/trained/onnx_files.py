"""A network as an ONNX file, for programs without PyTorch: `images` (batch, C, H, W) -> `logits` (batch, classes)."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from research.errors import Failure, UsageError

NEEDED = ("onnx", "onnxscript", "onnxruntime")
KEY = "research"  # of our description in the metadata of a file


def require_onnx() -> None:
    """UsageError in one line when a library is missing."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"format=onnx needs {' and '.join(missing)}; pip install 'research[onnx]'")


def write_onnx(model: nn.Module, shape: tuple[int, ...], told: Mapping[str, Any], path: Path) -> None:
    """Write ``model``, which takes any number of inputs of ``shape`` at once, with ``told`` as its description.

    Raises:
        Failure: ONNX lacks something that the network computes.
    """
    example, batch = torch.zeros(2, *shape), torch.export.Dim("batch")
    with torch.no_grad():
        model(example)  # what layers keep from their first call is made of numbers, and not while they are traced
    names = {"input_names": ["images"], "output_names": ["logits"]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations inside torch
            program = torch.onnx.export(
                model, (example,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False, **names
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        said = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise Failure(f"the network cannot be written as ONNX: {said.strip()}") from error
    program.model.metadata_props[KEY] = json.dumps(told)
    program.save(path)


def run_onnx(path: Path, inputs: Tensor) -> Tensor:
    """Logits of the network in ``path`` for ``inputs``, computed by ONNX Runtime on the CPU."""
    from onnxruntime import InferenceSession

    (logits,) = InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": inputs.numpy()})
    return torch.from_numpy(logits)


def is_ours(path: Path) -> bool:
    """Whether :func:`write_onnx` wrote the file."""
    import onnx

    try:
        return any(prop.key == KEY for prop in onnx.load(path, load_external_data=False).metadata_props)
    except Exception:  # the parser's own errors share no base class
        return False
