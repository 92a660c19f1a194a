"""Augmentation as timm's training script spells it, from which the trainers of GraM and PowerGrad come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from research.config.seed_commands.command import only
from research.errors import UsageError


def policy(name: Any) -> dict[str, Any]:
    """``aa``: none of timm's policies is here."""
    if name not in ("none", "", None, False):
        raise UsageError(
            f"aa={name!r}: timm's policies are not here; RandAugment as torchvision has it is "
            f"data_args.randaugment=2 data_args.randaugment_magnitude=9 (of 30)"
        )
    return {}


ALIASES: dict[str, str | Callable[[Any], dict[str, Any]]] = {
    "mixup": "data_args.mixup",
    "cutmix": "data_args.cutmix",
    "mixup_prob": only("mixup_prob", 1),
    "mixup_switch_prob": only("mixup_switch_prob", 0.5),
    "mixup_mode": only("mixup_mode", "batch"),
    "mixup_off_epoch": only("mixup_off_epoch", 0),
    "reprob": "data_args.erase",
    "remode": "data_args.erase_mode",
    "recount": only("recount", 1),
    "aa": policy,
}


def settled(flags: dict[str, Any], notes: list[str]) -> None:
    """Take from ``flags`` what has no effect beside the others; ``notes`` say so, and what differs from timm."""
    if not flags.get("reprob"):
        flags.pop("reprob", None)
        if "remode" in flags:
            notes.append(f"remode={flags.pop('remode')}: has no effect without --reprob")
    else:
        notes.append(f"reprob={flags['reprob']}: boxes of torchvision's sizes (area to 0.33, there to 1/3)")
    if flags.get("mixup") or flags.get("cutmix"):
        notes.append("an image is mixed with the one before it in the whole step, there with its mirror in the batch")
