"""GraM's seed, and its published release (SGS)."""

from __future__ import annotations

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


ALIASES = {
    "c_type": nmi_k,
    "c_epochs": "gram.epochs",
    "c_train_batches": "gram.batches",
    "c_warmup": "gram.warmup",
    "c_variant": "gram.variant",
    "sgs": "gram",
    "sgs_k": "gram.k",
    "sgs_epochs": "gram.epochs",
    "sgs_train_batches": "gram.batches",
    "sgs_warmup": "gram.warmup",
    "sgs_diagonal_removal": lambda removed: {"gram.variant": "sparse" if removed else "allpairs"},
}
