"""Every other network of torchvision and timm, reached as ``torchvision:NAME`` and ``timm:NAME``.

Their constructors take what the library's do; there is no signature to check arguments against before building.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from research.errors import UsageError, nearest


def torchvision_model(name: str) -> Callable[..., nn.Module]:
    """The constructor of torchvision's classification network ``name``.

    Raises:
        UsageError: torchvision has no such network.
    """
    import torchvision.models as library

    names = library.list_models(module=library)
    if name not in names:
        raise UsageError(f"unknown model 'torchvision:{name}'{nearest(name, names)}")
    # with auxiliary heads these two return a tuple while they train
    defaults = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}

    def construct(num_classes: int = 1000, input_shape: tuple[int, ...] = (3, 224, 224), /, **args: Any) -> nn.Module:
        if input_shape[0] != 3:
            raise UsageError(f"torchvision's networks take 3 channels, not {input_shape[0]}; timm's take any number")
        with published_weights("torchvision", name, args):
            return library.get_model(name, num_classes=num_classes, **defaults | args)

    return construct


def timm_model(name: str) -> Callable[..., nn.Module]:
    """The constructor of timm's network ``name``.

    Raises:
        UsageError: timm has no such network.
    """
    import timm

    if not timm.is_model(name):
        raise UsageError(f"unknown model 'timm:{name}'{nearest(name, timm.list_models())}")

    published = timm.get_pretrained_cfg(name)
    known = published.num_classes if published else 1000

    def construct(num_classes: int = known, input_shape: tuple[int, ...] = (3, 224, 224), /, **args: Any) -> nn.Module:
        with published_weights("timm", name, args):
            return timm.create_model(name, num_classes=num_classes, in_chans=input_shape[0], **args)

    return construct


@contextmanager
def published_weights(library: str, name: str, args: Mapping[str, Any]) -> Iterator[None]:
    """Says in one line what to do when the published weights that ``args`` ask for cannot be fetched."""
    try:
        yield
    except OSError as error:  # of urllib, huggingface_hub and the disk alike
        if not PUBLISHED[library].keys() & args.keys():
            raise
        raise UsageError(
            f"the published weights of {library}:{name} are not on this machine and cannot be fetched "
            f"({str(error).splitlines()[0]}); build it once where there is a network and copy {CACHES[library]} here, "
            "or give a file of weights"
        ) from error


class Preparation(NamedTuple):
    """How inputs were made for published weights: normalisation per channel, the filter and the centre crop."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float


def preparation(name: str) -> Preparation | None:
    """What its library has on record of the newest published weights of ``torchvision:NAME`` or ``timm:NAME``."""
    library, _, inner = name.partition(":")
    if library == "timm":
        import timm

        record = timm.get_pretrained_cfg(inner)
        known = record and Preparation(tuple(record.mean), tuple(record.std), record.interpolation, record.crop_pct)
    elif library == "torchvision":
        import torchvision.models

        made = torchvision.models.get_model_weights(inner).DEFAULT.transforms()
        share = made.crop_size[0] / made.resize_size[0]
        known = Preparation(tuple(made.mean), tuple(made.std), made.interpolation.value, share)
    else:
        return None
    return known if known and known.interpolation in ("bilinear", "bicubic") else None


CACHES = {
    "torchvision": "~/.cache/torch/hub/checkpoints ($TORCH_HOME/hub/checkpoints)",
    "timm": "~/.cache/huggingface/hub ($HF_HOME/hub)",
}
PUBLISHED: dict[str, dict[str, Any]] = {"torchvision": {"weights": "DEFAULT"}, "timm": {"pretrained": True}}
"""What the constructors of a library take for a network's newest published weights."""
LIBRARIES: dict[str, Callable[[str], Callable[..., nn.Module]]] = {
    "torchvision": torchvision_model,
    "timm": timm_model,
}
