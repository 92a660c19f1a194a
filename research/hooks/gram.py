"""GraM: multiply the gradient of every spatial convolution, tap by tap, by how correlated its input is at that tap.

Published as Spatial Gradient Scaling (arXiv 2303.02733). For a kernel of kh x kw taps a matrix M of that size, mean 1,
measured from the layer's input (see ``research.measures.nmi``): ``grad[o, i] *= M`` between clipping and the optimizer,
so that weight decay is not scaled and momentum accumulates scaled gradients.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from research.devices import true_float32
from research.distributed import all_reduce, broadcast_buffers
from research.files import write_atomic
from research.hooks.base import Hook
from research.measures import nmi as measure
from research.measures.tap_controls import Place, placed
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run


@dataclass
class Layer:
    """The measurement of one convolution."""

    nmi: Tensor  # (C, kh, kw) float64 on the CPU, k = 1
    corr: Tensor  # (kh, kw) float32 on the CPU
    multiplier: Tensor  # (kh, kw) float32 on the run's device; nan when at some tap no channel is defined
    pairs: int  # of the tap and channel with most
    bins: int  # of the histogram, an axis
    broken: int  # channels with nan or inf
    seconds: float


class Gram(Hook):
    """Scale the gradients of spatial convolutions by the correlation of their inputs, tap by tap.

    Measured before epoch ``warmup`` and every later epoch that is a multiple of ``epochs``, on the epoch's own first
    batches, with the network in evaluation mode and true float32, whatever ``amp`` and ``tf32`` say. Convolutions with
    one tap on a side, transposed, frozen and unreached ones are left alone; so is, with a note, a layer without
    anything to measure. A convolution called twice in one forward pass counts with its last call. Padding counts as
    zeros in every padding mode.

    All batches go through the network at once and maps are measured where they arise, one layer at a time: the
    memory needed beyond training's is one layer's maps of these batches, and one pass serves ranges and counts.
    """

    neutral = {"warmup": 1_000_000}

    def __init__(
        self,
        k: Annotated[float, Range(above=0), "lifts weak correlations; k -> inf is plain training"] = 8.0,
        epochs: Annotated[int, Range(least=1), "measure again every n epochs"] = 1,
        batches: Annotated[int, Range(least=1), "training batches measured"] = 2,
        warmup: Annotated[int, Range(least=0), "epochs of plain training first"] = 1,
        variant: Annotated[measure.Variant, "which pixels pair up; sparse leaves zeros out"] = "center",
        place: Annotated[Place, "where multipliers stand: as measured, or a control that has lost places"] = "measured",
    ):
        self.k, self.epochs, self.batches, self.warmup = k, epochs, batches, warmup
        self.variant, self.place = variant, place
        self.multipliers: dict[str, Tensor] = {}  # by module name; a layer without one trains plainly
        self._weights: list[Tensor] | None = None  # in the order of multipliers

    def due(self, epoch: int) -> bool:
        """Whether the multipliers are measured before ``epoch``."""
        return epoch == self.warmup or (epoch > self.warmup and epoch % self.epochs == 0)

    def never(self, run: Run) -> str:
        if self.warmup >= run.epochs:
            return f"the run has {run.epochs} epochs, all of them within warmup={self.warmup}"
        return "" if spatial_convolutions(run.model) else "no trained convolution has several taps on both sides"

    def out_of_order(self, later: Mapping[str, Hook]) -> str:
        growing = [name for name in ("rigl", "itop") if name in later]  # which look at gradients themselves
        return f"{growing[0]}, listed after it, grows by gradients that are multiplied already" if growing else ""

    def undone(self, run: Run) -> str:
        return "" if self.multipliers else "no gradient was ever scaled: it trained plainly"

    def epoch_start(self, run: Run) -> None:
        if run.epoch < self.warmup:
            run.note(f"gram: warming up, plain training until epoch {self.warmup}")
        if not self.due(run.epoch):
            return
        layers = self.measure(run)
        if self.place != "measured":
            for name, layer in layers.items():
                drawn = torch.Generator().manual_seed(run.seed_for("gram", name))  # the same places all through the run
                layer.multiplier = placed(layer.multiplier, self.place, drawn)
        self.multipliers = {name: m for name, layer in layers.items() if (m := layer.multiplier).isfinite().all()}
        self._weights = None
        self.report(run, layers)
        if run.rank == 0:
            self.record(run, layers)

    def grads(self, run: Run) -> None:
        if self._weights is None:
            self._weights = [run.model.get_submodule(name).weight for name in self.multipliers]
        scaled = [
            (w.grad, m) for w, m in zip(self._weights, self.multipliers.values(), strict=True) if w.grad is not None
        ]
        if scaled:
            torch._foreach_mul_(*map(list, zip(*scaled, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        return dict(self.multipliers)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.multipliers, self._weights = dict(state), None

    @torch.no_grad()
    def measure(self, run: Run) -> dict[str, Layer]:
        """Every spatial convolution's correlation in the first batches of the current epoch, by module name."""
        inputs = torch.cat([inputs for inputs, _ in run.train_loader.head(self.batches)])
        broadcast_buffers(run.model)
        with true_float32(run.device):
            return at_each_convolution(run.model, inputs, self.measure_layer)

    def measure_layer(self, conv: nn.Conv2d, x: Tensor) -> Layer:
        """Measure one layer's maps ``x`` (B, C, H, W) of all processes as if they were one batch."""
        started = time.perf_counter()
        x = x.float()
        geometry = measure.geometry_of(x.shape[2:], conv.kernel_size, conv.padding, conv.dilation, self.variant)
        found = measure.ranges(x, geometry)
        all_reduce(found.low, dist.ReduceOp.MIN)
        all_reduce(found.high, dist.ReduceOp.MAX)
        all_reduce(found.pairs)
        counts = all_reduce(measure.joint_counts(x, geometry, found))
        nmi = measure.nmi_of_counts(counts, geometry, found)
        corr = measure.channel_mean(nmi, self.k)
        multiplier = measure.gradient_multiplier(corr)
        if dist.is_initialized():
            dist.broadcast(multiplier, src=0)  # machines may differ in the last bit of a logarithm
        pairs, bins, broken = torch.stack([found.pairs.max(), found.bins.max(), (~found.finite).sum()]).tolist()
        return Layer(nmi.cpu(), corr.cpu(), multiplier, pairs, bins, broken, time.perf_counter() - started)

    def report(self, run: Run, layers: dict[str, Layer]) -> None:
        """Log a row for each layer, and a note for each that could not be measured."""
        images = run.config.batch_size * min(self.batches, len(run.train_loader))
        if not layers:
            run.note("gram: no trained convolution with several taps on both sides; nothing is scaled")
        for name, layer in layers.items():
            undefined = int(layer.nmi.isnan().any(dim=(1, 2)).sum())
            shape = describe(layer.multiplier.cpu())
            run.log("gram", layer=name, **shape, images=images, nan_channels=undefined, seconds=layer.seconds)
            if name not in self.multipliers:
                run.note(f"gram: no input channel of {name} varies; it trains with plain gradients in this epoch")
            if layer.broken:
                run.note(f"gram: {layer.broken} input channels of {name} hold nan or inf and were left out")
        seconds = sum(layer.seconds for layer in layers.values())
        run.note(f"gram: measured {len(layers)} layers on {images} images in {seconds:.1f} s")

    def record(self, run: Run, layers: dict[str, Layer]) -> None:
        """Write everything measured to ``gram/epoch_EEE.npz``, from which any k can be drawn without training again."""
        about = {"epoch": run.epoch, "k": self.k, "variant": self.variant, "place": self.place}
        arrays: dict[str, Any] = {"names": np.array(list(layers), dtype=str), **about}
        for i, layer in enumerate(layers.values()):
            arrays |= {
                f"nmi_{i}": layer.nmi.numpy(),
                f"corr_{i}": layer.corr.numpy(),
                f"multiplier_{i}": layer.multiplier.cpu().numpy(),
                f"n_{i}": layer.pairs,
                f"bins_{i}": layer.bins,
                f"nan_channels_{i}": int(layer.nmi.isnan().any(dim=(1, 2)).sum()),
            }
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        run.paths.multipliers.mkdir(exist_ok=True)
        write_atomic(run.paths.multipliers_of(run.epoch), content.getbuffer())


def spatial_convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Trained Conv2d modules with several taps on both sides, by module name, in order of registration.

    The first stands for all modules that share one weight, so that no gradient is scaled twice. A weight that is
    computed from others (tied) has no gradient of its own and is left out.
    """
    found, weights = {}, set()
    for name, module in model.named_modules():
        own = isinstance(module, nn.Conv2d) and isinstance(module.weight, nn.Parameter)
        if own and min(module.kernel_size) > 1 and module.weight.requires_grad:
            if id(module.weight) not in weights:
                found[name] = module
            weights.add(id(module.weight))
    return found


def at_each_convolution(
    model: nn.Module, inputs: Tensor, measured: Callable[[nn.Conv2d, Tensor], Any]
) -> dict[str, Any]:
    """What ``measured`` makes of every spatial convolution and its input (B, C, H, W), by module name.

    ``inputs`` pass through the network once, in evaluation mode.
    """
    found: dict[str, Any] = {}

    def look(name: str, conv: nn.Conv2d, args: tuple, kwargs: dict) -> None:
        found[name] = measured(conv, args[0] if args else kwargs["input"])

    was_training = model.training
    model.eval()
    convolutions = spatial_convolutions(model)
    handles = [conv.register_forward_pre_hook(partial(look, n), with_kwargs=True) for n, conv in convolutions.items()]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    return found


@torch.no_grad()
def gradient_multipliers(
    model: nn.Module, inputs: Tensor, k: float = 8.0, variant: measure.Variant = "center"
) -> dict[str, Tensor]:
    """M (kh, kw), float32, of every spatial convolution by module name, at ``inputs`` (B, C, H, W); for any loop.

    Its weight's gradient is to be multiplied by it after clipping. A convolution without anything to measure has none.
    Every process measures its own inputs: under DDP, send those of one to the others.
    """

    def multiplier(conv: nn.Conv2d, maps: Tensor) -> Tensor:
        corr = measure.correlation_matrix(maps.float(), conv.kernel_size, conv.padding, conv.dilation, k, variant)
        return measure.gradient_multiplier(corr)

    found = at_each_convolution(model, inputs, multiplier)
    return {name: each for name, each in found.items() if each.isfinite().all()}


def nmi_anisotropy(model: nn.Module, x: Tensor, k: float = 8.0) -> float:
    """Mean over spatial convolutions of |log2| of M's horizontal over its vertical neighbours, at inputs ``x``.

    0 where rows and columns of the maps depend on each other alike; NaN without a convolution that can be measured.
    """
    ratios = np.array([describe(each)["anisotropy"] for each in gradient_multipliers(model, x, k).values()])
    ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
    return float(np.abs(np.log2(ratios)).mean()) if len(ratios) else float("nan")


def describe(multiplier: Tensor) -> dict[str, float]:
    """Summary of one M (kh, kw): weight of the centre, mean weight off it, horizontal over vertical neighbours."""
    kh, kw = multiplier.shape
    i, j = (kh - 1) // 2, (kw - 1) // 2
    centre = multiplier[i, j]
    off_centre = (multiplier.sum() - centre) / (kh * kw - 1)
    horizontal, vertical = (multiplier[i].sum() - centre) / (kw - 1), (multiplier[:, j].sum() - centre) / (kh - 1)
    return {"centre": centre.item(), "off_centre": off_centre.item(), "anisotropy": (horizontal / vertical).item()}
