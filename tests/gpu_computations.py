"""Computations that give the same numbers on every device: functions of the device that return tensors to compare.

``COMPUTATIONS`` names them all; what is slow on a pretended GPU is in ``LARGE``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from research.data.augment import Augment
from research.data.loader import DataInfo, Loader, Share
from research.data.memory_loader import Images, MemoryLoader, VectorLoader
from research.hooks.prune import prune_step
from research.hooks.sparse import (
    deepr_step,
    dsr_step,
    grow_random,
    itop_step,
    rigl_step,
    set_step,
    snfs_step,
)
from research.hooks.sparse.base import random_mask
from research.hooks.sparse.criteria import drop_smallest_of_all
from research.hooks.sparse.dsr import allocate, regrow
from research.layers.families import LAYERS
from research.layers.masked import Masked, active_weights, attach_mask, mask_shape, masked_weights
from research.layers.substitute import substitute
from research.measures.ldi import ldi
from research.measures.nmi import correlation_matrix, nmi_per_channel
from research.models import create_model

Compute = Callable[[str], dict[str, Tensor]]

# -- networks and substitutes -------------------------------------------------------------------------------------


def learned(make: Callable[[], nn.Module], shape: tuple[int, ...], device: str) -> dict[str, Tensor]:
    """Loss and logits of a network in training, and its logits in evaluation after a step."""
    torch.manual_seed(0)
    model = make()
    x, y = torch.randn(4, *shape).to(device), torch.arange(4).to(device)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    logits = model(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    optimizer.step()
    with torch.inference_mode():
        after = model.eval()(x)
    return {"loss": loss, "logits": logits, "after": after}


def network(name: str, shape: tuple[int, ...] = (1, 8, 8), **args) -> Compute:
    return partial(learned, partial(create_model, name, 10, shape, **args), shape)


def substituted(spec: str) -> Compute:
    def make() -> nn.Module:
        model = create_model("resnet8", 10, (1, 8, 8))
        substitute(model, spec, (1, 8, 8))
        return model

    return partial(learned, make, (1, 8, 8))


# -- events of sparse methods -------------------------------------------------------------------------------------

Step = Callable[[list[Masked], list[Tensor], torch.Generator], object]


def deepr(tensors: list[Masked], signals: list[Tensor], generator: torch.Generator) -> None:
    before = active_weights(tensors)
    for tensor, signal in zip(tensors, signals, strict=True):
        tensor.add(tensor.weight, signal.reshape(-1)[: len(tensor.active)])
    deepr_step(tensors, before, partial(grow_random, generator=generator))


STEPS: dict[str, Step] = {
    "rigl": lambda tensors, signals, generator: rigl_step(tensors, 0.3, signals),
    "rigl at random": lambda tensors, signals, generator: rigl_step(tensors, 0.3, None, generator),
    "itop": lambda tensors, signals, generator: itop_step(tensors, 0.3, signals),
    "itop at random": lambda tensors, signals, generator: itop_step(tensors, 0.3, None, generator),
    "snfs": lambda tensors, signals, generator: snfs_step(tensors, signals, 0.3),
    "set": lambda tensors, signals, generator: set_step(tensors, 0.3, partial(grow_random, generator=generator)),
    "dsr": lambda tensors, signals, generator: dsr_step(tensors, 0.1, 50, partial(grow_random, generator=generator)),
    "dsr exact": lambda tensors, signals, generator: regrow(
        tensors, drop_smallest_of_all(tensors, 50), partial(grow_random, generator=generator), allocate
    ),
    "prune": lambda tensors, signals, generator: prune_step(tensors, [len(t.active) // 2 for t in tensors]),
}


def events(step: Step, granularity: int, device: str) -> dict[str, Tensor]:
    """Masks and weights of a kernel, in channels_last, and a matrix after three events; and the lists of the host."""
    generator = torch.Generator().manual_seed(0)
    layers = nn.ModuleList([nn.Conv2d(8, 16, 3), nn.Linear(40, 30)])
    for layer in layers:
        layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
        shape = mask_shape(layer.weight, granularity)
        attach_mask(layer, random_mask(shape, torch.Size(shape).numel() // 3, generator))
    layers.to(device).to(memory_format=torch.channels_last)
    tensors = masked_weights(layers)
    with torch.no_grad():
        for _ in range(3):
            signals = [torch.randn(t.weight.shape, generator=generator).to(device) for t in tensors]
            step(tensors, signals, generator)
            for tensor, signal in zip(tensors, signals, strict=True):  # without ties, which devices break as they like
                tensor.weight.add_(signal, alpha=0.01)
                tensor.apply()
    found = {}
    for tensor in tensors:
        name = tensor.name
        found |= {f"{name} mask": tensor.mask, f"{name}": tensor.weight, f"{name} places": tensor.places}
        found |= {f"{name} flags": tensor.flags, f"{name} active": tensor.active}
        # what the host keeps and what lies on the device are one
        assert torch.equal(tensor.flat(tensor.mask).cpu(), tensor.flags)
        assert torch.equal(tensor.places.cpu(), tensor.active)
        assert torch.equal(torch.from_numpy(np.flatnonzero(tensor.flags.numpy())), tensor.active)
    return found


# -- loaders ------------------------------------------------------------------------------------------------------


def batches(loader: Loader) -> dict[str, Tensor]:
    found = list(loader)
    return {"inputs": torch.cat([inputs for inputs, _ in found]), "targets": torch.cat([y for _, y in found])}


def images(augment: Augment, split: str, device: str) -> dict[str, Tensor]:
    random, size = np.random.default_rng(0), augment.image_size or 8
    pixels = random.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    info = DataInfo("made", 10, (3, size, size), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1), 20, 20)
    stored = Images.of_one_size(pixels, random.integers(0, 10, 20))
    return batches(MemoryLoader(info, Share(split, 0, 1, 5, 0), stored, augment, device))


def vectors(device: str) -> dict[str, Tensor]:
    random = np.random.default_rng(0)
    info = DataInfo("made", 2, (3,), (0.0,), (1.0,), 20, 20)
    return batches(
        VectorLoader(info, Share("train", 0, 1, 5, 0), random.normal(size=(20, 3)), random.integers(0, 2, 20), device)
    )


# -- measures -----------------------------------------------------------------------------------------------------


def nmi(variant: str, device: str) -> dict[str, Tensor]:
    x = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).relu().to(device)
    raw = nmi_per_channel(x, 3, 1, variant=variant)
    return {"nmi": raw, "corr": correlation_matrix(x, 3, 1, k=[2, 8], variant=variant)}


def isometry(mode: str, device: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = create_model("dense_mlp", 10, (1, 4, 4), width=6, depth=5, tc=4)
    x = torch.randn(20, 16)
    found = ldi(model.to(device), x.to(device), mode, batch_size=10)
    return {"numbers": torch.tensor([found.mean, found.std, found.pooled_std, *found.layers])}


AUGMENTS = {
    "as stored": Augment(),
    "crop, flip, cutout": Augment(crop="pad", padding=2, flip=True, cutout=3),
    "reflected": Augment(crop="pad", padding=2, pad_mode="reflect"),
    "colours": Augment(jitter=0.4, flip=True),
    "resized": Augment(crop="resized", image_size=6, eval_resize=7),
    "resized, bicubic": Augment(crop="resized", interpolation="bicubic", image_size=6),
}

NETWORKS: dict[str, Compute] = {
    "mnist_mlp": network("mnist_mlp"),
    "dense_mlp": network("dense_mlp", width=6, depth=5, tc=4),
    "resnet8": network("resnet8"),
    "dct_cnn": network("dct_cnn", (3, 16, 16)),
    "wrn": network("wrn-10-1"),
    "darts": network("darts", (1, 16, 16), C=4, layers=3),
    "regular_dense": network("regular_dense", (3, 16, 16)),
    "mobilenet_v1": network("mobilenet_v1", (3, 32, 32)),
}
LARGE_NETWORKS: dict[str, Compute] = {
    "darts_imagenet": network("darts_imagenet", (3, 64, 64), C=4, layers=3),
    "cifar_vgg11": network("cifar_vgg11", (3, 32, 32)),
    "dense_depth": network("dense_depth", (3, 32, 32)),
    "resnet18": network("resnet18", (3, 32, 32)),
    "resnet50": network("resnet50", (3, 32, 32)),
    "resnext50_32x4d": network("resnext50_32x4d", (3, 32, 32)),
    "resnet18_wobn": network("resnet18_wobn", (3, 32, 32)),
    "seresnet18": network("seresnet18", (3, 32, 32)),
    "mobilenet_v2": network("mobilenet_v2", (3, 32, 32)),
    "torchvision": network("torchvision:shufflenet_v2_x0_5", (3, 32, 32)),
}
COMPUTATIONS: dict[str, Compute] = {
    **{f"network {name}": compute for name, compute in NETWORKS.items()},
    **{f"substitute {name}": substituted(name) for name in LAYERS},
    **{f"event {name}, {g}": partial(events, step, g) for name, step in STEPS.items() for g in (4, 2)},
    "event deepr, 4": partial(events, deepr, 4),
    **{f"images {n}, {s}": partial(images, a, s) for n, a in AUGMENTS.items() for s in ("train", "val")},
    "vectors": vectors,
    **{f"nmi {variant}": partial(nmi, variant) for variant in ("center", "allpairs", "sparse")},
    **{f"ldi {mode}": partial(isometry, mode) for mode in ("exact", "reference", "post")},
}
LARGE: dict[str, Compute] = {f"network {name}": compute for name, compute in LARGE_NETWORKS.items()}
