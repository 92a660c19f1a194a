"""Cost of measuring a ResNet-18's feature maps: ours against plain per-channel 2-D histograms.

    python tests/benchmarks/nmi.py [--images 32] [--size 224] [--rounds 3] [--device cpu|cuda]

All measure variant "center" of the inputs of the 17 convolutions with several taps, and agree. Every round runs every
algorithm once, one after another; the table gives the median CPU time on one thread and the median of the ratios within
a round to the plain algorithm that calls ``fast_histogram`` (if installed, as the published code does), else
``numpy.bincount``. ``numpy.histogram2d`` runs in the first round only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from research.hooks.gram import spatial_convolutions
from research.measures import nmi, nmi_compiled, nmi_torch

try:
    from fast_histogram import histogram2d as fast_histogram2d
except ImportError:
    fast_histogram2d = None

Layer = tuple[nn.Conv2d, torch.Tensor]


def feature_maps(images: int, size: int, device: str) -> list[Layer]:
    """Inputs of every convolution that is measured, of smooth noise, and the network as it is initialised."""
    torch.manual_seed(0)
    model, found = resnet18().eval().to(device), []
    for conv in spatial_convolutions(model).values():
        conv.register_forward_pre_hook(lambda conv, args: found.append((conv, args[0])))
    x = F.avg_pool2d(torch.randn(images, 3, size + 4, size + 4), 5, 1) * 5
    with torch.no_grad():
        started = time.process_time()
        model(x.to(device))
    print(f"forward pass of the {images} images: {time.process_time() - started:.2f} s CPU")
    return found


def by_numpy(x: np.ndarray, y: np.ndarray, bins: int, limits: list[tuple[float, float]]) -> np.ndarray:
    return np.histogram2d(x, y, bins=bins, range=limits)[0]


def by_bincount(x: np.ndarray, y: np.ndarray, bins: int, limits: list[tuple[float, float]]) -> np.ndarray:
    index = []
    for values, (low, high) in zip((x, y), limits, strict=True):
        index.append(np.minimum((values.astype(np.float64) - low) * (bins / (high - low)), bins - 1).astype(np.int64))
    return np.bincount(index[0] * bins + index[1], minlength=bins * bins).reshape(bins, bins)


def by_fast_histogram(x: np.ndarray, y: np.ndarray, bins: int, limits: list[tuple[float, float]]) -> np.ndarray:
    return fast_histogram2d(x, y, bins=bins, range=limits)


def plain(histogram2d: Callable) -> Callable[[list[Layer]], list[np.ndarray]]:
    """Per layer, channel and tap: two flattened windows, their ranges, a 2-D histogram, three entropies."""

    def entropy(counts: np.ndarray) -> float:
        p = counts[counts > 0] / counts.sum()
        return -(p * np.log2(p)).sum()

    def measure(layers: list[Layer]) -> list[np.ndarray]:
        found = []
        for conv, maps in layers:
            (kh, kw), (ph, pw) = conv.kernel_size, conv.padding
            padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
            height, width = padded.shape[2] - kh + 1, padded.shape[3] - kw + 1
            bins = 1 + int(np.ceil(np.log2(len(padded) * height * width)))
            np.seterr(invalid="ignore")  # 0 / 0 where both sides are constant
            matrix = np.ones((padded.shape[1], kh, kw))
            for c, i, j in np.ndindex(matrix.shape):
                windows = [padded[:, c, a : a + height, b : b + width].ravel() for a, b in ((kh // 2, kw // 2), (i, j))]
                limits = [(float(w.min()), float(w.max()) + 1e-12) for w in windows]
                if (i, j) != (kh // 2, kw // 2):
                    counts = histogram2d(*windows, bins, limits)
                    joint = entropy(counts)
                    matrix[c, i, j] = (entropy(counts.sum(0)) + entropy(counts.sum(1)) - joint) / joint
            found.append(matrix)
        return found

    return measure


def ours(kernels) -> Callable[[list[Layer]], list[np.ndarray]]:
    def measure(layers: list[Layer]) -> list[np.ndarray]:
        found = []
        for conv, maps in layers:
            geometry = nmi.geometry_of(maps.shape[2:], conv.kernel_size, conv.padding, 1, "center")
            known = nmi.ranges(maps, geometry)
            counts = kernels.counts(maps, geometry, known.low, known.high, known.bins, known.finite)
            found.append(nmi.nmi_of_counts(counts, geometry, known).cpu().numpy())
        return found

    return measure


def timed(measure: Callable, layers: list[Layer], clock: Callable[[], float]) -> tuple[float, list[np.ndarray]]:
    started = clock()
    found = measure(layers)
    return clock() - started, found


def compare(layers: list[Layer], rounds: int) -> None:
    baseline = "plain, fast_histogram" if fast_histogram2d else "plain, numpy.bincount"
    algorithms = {"plain, numpy.histogram2d": plain(by_numpy), "plain, numpy.bincount": plain(by_bincount)}
    algorithms |= {"plain, fast_histogram": plain(by_fast_histogram)} if fast_histogram2d else {}
    algorithms |= {"ours, torch": ours(nmi_torch), "ours, compiled": ours(nmi_compiled)}
    torch.set_num_threads(1)
    few = [(conv, maps[:1]) for conv, maps in layers]
    ours(nmi_compiled)(few)  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in algorithms}
    for number in range(rounds):
        for name, measure in algorithms.items():
            if number and "histogram2d" in name:
                continue
            spent, found = timed(measure, layers, time.process_time)
            seconds[name].append(spent)
            if name == baseline:
                expected = found
            if name.startswith("ours"):
                worst = max(np.nanmax(np.abs(a - b)) for a, b in zip(found, expected, strict=True))
                assert worst < 1e-8, f"{name} differs by {worst}"
    print("| algorithm | CPU s | times faster |\n| --- | --- | --- |")
    for name, spent in seconds.items():
        ratios = [a / b for a, b in zip(seconds[baseline], spent, strict=False)]
        print(f"| {name} | {statistics.median(spent):.2f} | {statistics.median(ratios):.2f} |")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cpu, wall = (
            min(timed(ours(nmi_compiled), layers, clock)[0] for _ in range(rounds))
            for clock in (time.process_time, time.perf_counter)
        )
        print(f"ours, compiled, {threads} threads: {wall:.2f} s, {cpu:.2f} s CPU (best of {rounds})")


def on_gpu(layers: list[Layer], rounds: int) -> None:
    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = ours(nmi_torch)(layers)  # warms up
    walls = [timed(ours(nmi_torch), layers, clock)[0] for _ in range(rounds)]
    print(f"ours on {torch.cuda.get_device_name()}: {statistics.median(walls):.3f} s a measurement, ", end="")
    print(f"{(torch.cuda.max_memory_allocated() - before) / 1e9:.2f} GB beyond the maps")
    expected = ours(nmi_compiled)([(conv, maps.cpu()) for conv, maps in layers])
    print(
        "largest difference from the CPU:", max(np.nanmax(np.abs(a - b)) for a, b in zip(found, expected, strict=True))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    layers = feature_maps(given.images, given.size, given.device)
    (on_gpu if given.device == "cuda" else compare)(layers, given.rounds)


if __name__ == "__main__":
    main()
