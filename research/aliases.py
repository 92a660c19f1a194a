"""Names that the seeds' own command lines used, and what they mean here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from research.errors import UsageError


def nmi_k(text: Any) -> dict[str, Any]:
    """``c_type``: ``nmi`` followed by a decimal k (``nmi8``, ``nmi2.5``, ``nmi1e2``)."""
    number = str(text).removeprefix("nmi")
    try:
        if number == str(text):
            raise ValueError
        return {"gram.k": float(number)}
    except ValueError:
        raise UsageError(f"c_type={text!r}: expected 'nmi' followed by a number k > 0, such as nmi8") from None


def gpus(count: Any) -> dict[str, Any]:
    """``gpus=N``: N processes, one a GPU; ``gpus=0`` is one process on the CPU."""
    return {"device": "cpu", "processes": 1} if count == 0 else {"device": "cuda", "processes": count}


def modify_softmax(alpha: Any) -> dict[str, Any]:
    """``modify_softmax=ALPHA``: PowerGrad's alpha; 0 switches it off."""
    return {"power_grad": False} if alpha == 0 else {"power_grad.alpha": alpha}


def same(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: value}


ALIASES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "gpus": gpus,
    # PowerGrad's seed
    "modify_softmax": modify_softmax,
    # GraM's seed, and the names of its published release (SGS)
    "c_type": nmi_k,
    "c_epochs": same("gram.epochs"),
    "c_train_batches": same("gram.batches"),
    "c_warmup": same("gram.warmup"),
    "c_variant": same("gram.variant"),
    "sgs": same("gram"),
    "sgs_k": same("gram.k"),
    "sgs_epochs": same("gram.epochs"),
    "sgs_train_batches": same("gram.batches"),
    "sgs_warmup": same("gram.warmup"),
    "sgs_diagonal_removal": lambda removed: {"gram.variant": "sparse" if removed else "allpairs"},
}
