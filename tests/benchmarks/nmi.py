"""Cost of measuring a ResNet-18's feature maps: ours against 2-D histograms of single channels.

    python tests/benchmarks/nmi.py
    python tests/benchmarks/nmi.py --device cuda       # milliseconds of a measurement, and that it agrees with the CPU

All measure variant "center" of the inputs of the 17 convolutions with several taps, at 224 pixels, and agree.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from pairs import Row, Ways, main
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from research.hooks.gram import spatial_convolutions
from research.measures import nmi, nmi_compiled, nmi_torch

Layer = tuple[nn.Conv2d, torch.Tensor]
Limits = list[tuple[float, float]]
NMI = Callable[[np.ndarray, np.ndarray, int, Limits], float]  # of two variables, in so many bins


@cache
def feature_maps(images: int, size: int, device: str = "cpu") -> list[Layer]:
    """Inputs of every convolution that is measured, of smooth noise, and the network as it is initialised."""
    torch.manual_seed(0)
    model, found = resnet18().eval().to(device), []
    for conv in spatial_convolutions(model).values():
        conv.register_forward_pre_hook(lambda conv, args: found.append((conv, args[0])))
    x = F.avg_pool2d(torch.randn(images, 3, size + 4, size + 4), 5, 1) * 5
    with torch.no_grad():
        model(x.to(device))
    return found


def binned(x: np.ndarray, y: np.ndarray, bins: int, limits: Limits) -> list[np.ndarray]:
    """The bin of every value, (N,) int64 each."""
    found = []
    for values, (low, high) in zip((x, y), limits, strict=True):
        found.append(np.minimum((values.astype(np.float64) - low) * (bins / (high - low)), bins - 1).astype(np.int64))
    return found


def by_counts(histogram2d: Callable[..., np.ndarray]) -> NMI:
    def entropy(counts: np.ndarray) -> float:
        p = counts[counts > 0] / counts.sum()
        return -(p * np.log2(p)).sum()

    def measure(x: np.ndarray, y: np.ndarray, bins: int, limits: Limits) -> float:
        counts = histogram2d(x, y, bins, limits)
        joint = entropy(counts)
        return (entropy(counts.sum(0)) + entropy(counts.sum(1)) - joint) / joint

    return measure


def by_bincount() -> NMI:
    def histogram2d(*given) -> np.ndarray:
        index, bins = binned(*given), given[2]
        return np.bincount(index[0] * bins + index[1], minlength=bins * bins).reshape(bins, bins)

    return by_counts(histogram2d)


def by_fast_histogram() -> NMI:
    from fast_histogram import histogram2d  # may be missing, as the two below

    return by_counts(histogram2d)


def by_scikit_learn() -> NMI:
    from sklearn.metrics import normalized_mutual_info_score as score

    return lambda *given: of_arithmetic_mean(score(*binned(*given)))


def by_torchmetrics() -> NMI:
    from torchmetrics.functional.clustering import normalized_mutual_info_score as score

    return lambda *given: of_arithmetic_mean(score(*map(torch.from_numpy, binned(*given))).item())


def of_arithmetic_mean(score: float) -> float:
    """Mutual information over the joint entropy, from that over the mean of both entropies."""
    return score / (2 - score)


def one_by_one(measure: NMI, layers: list[Layer]) -> list[np.ndarray]:
    """The correlation of the centre with every tap, of every layer (C, kh, kw), channel by channel as published."""
    found = []
    for conv, maps in layers:
        (kh, kw), (ph, pw) = conv.kernel_size, conv.padding
        padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        height, width = padded.shape[2] - kh + 1, padded.shape[3] - kw + 1
        bins = 1 + int(np.ceil(np.log2(len(padded) * height * width)))
        matrix = np.ones((padded.shape[1], kh, kw))
        for c, i, j in np.ndindex(matrix.shape):
            windows = [padded[:, c, a : a + height, b : b + width].ravel() for a, b in ((kh // 2, kw // 2), (i, j))]
            limits = [(float(w.min()), float(w.max()) + 1e-12) for w in windows]
            if (i, j) != (kh // 2, kw // 2):
                matrix[c, i, j] = measure(*windows, bins, limits)
        found.append(matrix)
    return found


def ours(kernels, layers: list[Layer]) -> list[np.ndarray]:
    found = []
    for conv, maps in layers:
        geometry = nmi.geometry_of(maps.shape[2:], conv.kernel_size, conv.padding, 1, "center")
        known = nmi.ranges(maps, geometry)
        counts = kernels.counts(maps, geometry, known.low, known.high, known.bins, known.finite)
        found.append(nmi.nmi_of_counts(counts, geometry, known).cpu().numpy())
    return found


def whole_network(theirs: Callable[[], NMI], images: int, kernels, small: bool) -> Ways:
    return agreeing(feature_maps(1, 64) if small else feature_maps(images, 224), 1, theirs(), kernels)


def one_layer(theirs: Callable[[], NMI], part: int, small: bool) -> Ways:
    """The second of the layers with 64 channels of 56 pixels; theirs only for every ``part``-th channel."""
    return agreeing(feature_maps(*((1, 64) if small else (8, 224)))[2:3], part, theirs(), nmi_compiled)


def agreeing(layers: list[Layer], part: int, measure: NMI, kernels) -> Ways:
    some = [(conv, maps[:, ::part]) for conv, maps in layers]
    np.seterr(invalid="ignore")  # 0 / 0 where both sides are constant
    for a, b in zip(ours(kernels, some), one_by_one(measure, some), strict=True):
        worst = np.nanmax(np.abs(a - b))
        assert worst < 1e-5, f"differs by {worst}"
    return Ways(partial(ours, kernels, layers), partial(one_by_one, measure, some), more=part)


BY_BINCOUNT = partial(whole_network, by_bincount)
SUBJECT = "NMI, ResNet-18, 224 px, 8 images"
LAYER = "NMI, 64 channels of 56 px, 8 images"
ROWS = [
    Row(SUBJECT, "published: fast_histogram", ">= 10", partial(whole_network, by_fast_histogram, 8, nmi_compiled),
        needs="fast_histogram"),
    Row(SUBJECT, "numpy.bincount", ">= 10", partial(BY_BINCOUNT, 8, nmi_compiled)),
    Row("the same in PyTorch alone, 1 image", "numpy.bincount", ">= 1", partial(BY_BINCOUNT, 1, nmi_torch)),
    Row(LAYER, "scikit-learn's NMI", ">= 10", partial(one_layer, by_scikit_learn, 16)),
    Row(LAYER, "torchmetrics' NMI", ">= 10", partial(one_layer, by_torchmetrics, 16), needs="torchmetrics"),
]  # fmt: skip


def on_gpu() -> None:
    def seconds() -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        ours(nmi_torch, layers)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    layers = feature_maps(32, 224, "cuda")
    torch.cuda.reset_peak_memory_stats()
    before, found = torch.cuda.memory_allocated(), ours(nmi_torch, layers)  # warms up
    walls = [seconds() for _ in range(5)]
    memory = (torch.cuda.max_memory_allocated() - before) / 1e9
    print(f"32 images: {statistics.median(walls):.3f} s a measurement, {memory:.2f} GB beyond the maps")
    expected = ours(nmi_compiled, [(conv, maps.cpu()) for conv, maps in layers])
    worst = max(np.nanmax(np.abs(a - b)) for a, b in zip(found, expected, strict=True))
    print(f"largest difference from the CPU: {worst}")


if __name__ == "__main__":
    on_gpu() if "cuda" in sys.argv[1:] else main(ROWS, __doc__)
