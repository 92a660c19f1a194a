"""Tied weights as a method: a layer that could be sparse gets free values instead of as many non-zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import nn

from research.hooks.base import Hook, Reasons
from research.hooks.sparse.base import idle_sparsities, sparsity_of_layers, units_of
from research.layers.masked import choose
from research.layers.tied import balanced_index, bank_size, tie
from research.parameters.signatures import Range

if TYPE_CHECKING:
    from research.runs.run import Run

DIMENSIONS = {"weight": 4, "slice": 2}  # of a kernel (O, I, kh, kw) that number its units


class Tied(Hook):
    """Tie the weights of a layer to round((1 - sparsity) N) free values through a fixed random map, used equally often.

    A bank has the layer's momentum and weight decay; the maps are part of the model's state. The layers are those that
    sparse training would choose. ``gram`` skips tied convolutions: their values do not belong to one tap.
    """

    neutral = {"sparsity": 0.0}
    exclusive = "masks"  # both stand for the weights of a layer
    draws = True

    def __init__(
        self,
        sparsity: Annotated[float, Range(least=0, below=1), "1 - values / units of a layer; 0 = untied"] = 0.9,
        sparsity_fc: Annotated[float | None, Range(least=0, below=1), "that of matrices; none = sparsity"] = None,
        sparsity_conv: Annotated[float | None, Range(least=0, below=1), "that of kernels; none = sparsity"] = None,
        unit: Annotated[
            Literal["weight", "slice"], "what is tied in a kernel: weights, or its (kh, kw) slices"
        ] = "weight",
        rescale_gradient: Annotated[bool, "divide a bank's gradient by the mean number of uses, N / B"] = False,
        only: Annotated[str, "patterns of layer names, separated by blanks: exactly these are tied"] = "",
        keep: Annotated[str, "patterns of layer names that stay untied"] = "",
        sparse_downsample: Annotated[bool, "convolutions of shortcuts are tied too"] = False,
    ):
        self.sparsity, self.sparsity_fc, self.sparsity_conv = sparsity, sparsity_fc, sparsity_conv
        self.unit, self.rescale_gradient = unit, rescale_gradient
        self.only, self.keep, self.sparse_downsample = only, keep, sparse_downsample
        self.banks: list[nn.Parameter] = []
        self.uses: list[float] = []  # N / B of each

    def idle(self) -> Reasons:
        reasons = {"sparse_downsample": "only= says which layers are tied"} if self.only else {}
        if None not in (self.sparsity_fc, self.sparsity_conv):
            reasons["sparsity"] = "sparsity_fc and sparsity_conv say it of every layer"
        if not (self.sparsity or self.sparsity_fc or self.sparsity_conv):
            others = ("unit", "rescale_gradient", "only", "keep", "sparse_downsample")
            reasons |= dict.fromkeys(others, "nothing is tied, with sparsity=0")
        return reasons

    def idle_in(self, run: Run) -> Reasons:
        reasons = idle_sparsities(self.choice)
        if self.tied and all(self.choice.sparse[name].linear for name in self.tied):
            reasons["unit"] = "no kernel is tied here"
        return reasons

    def build(self, run: Run) -> None:
        self.choice = choose(run.model, self.only, self.keep, self.sparse_downsample, inside=False)
        given = sparsity_of_layers(self.choice.sparse, self.sparsity, self.sparsity_fc, self.sparsity_conv)
        self.tied = [name for name, sparsity in given.items() if sparsity]
        for name in self.tied:
            site = self.choice.sparse[name]
            units = units_of(site, DIMENSIONS[self.unit])
            size = bank_size(units, given[name])
            tie(site.owner, balanced_index(units, size, run.generator("tied", name)))
            self.banks.append(site.owner.parametrizations.weight.original)
            self.uses.append(units / size)

    def setup(self, run: Run) -> None:
        maps = [name for name, _ in run.model.named_buffers() if name.endswith("parametrizations.weight.0.index")]
        ignored = getattr(run.model, "_ddp_params_and_buffers_to_ignore", [])
        # equal on all ranks already: DDP would send them with every forward pass
        run.model._ddp_params_and_buffers_to_ignore = [*ignored, *maps]

    def epoch_start(self, run: Run) -> None:
        if run.step == 0 and self.banks:
            left_out = ", which gram leaves alone" if "gram" in run.hooks else ""
            values = sum(bank.numel() for bank in self.banks)
            run.note(f"tied: {values:,} values in {len(self.banks)} layers{left_out}")
            run.note(self.choice.describe(self.tied, "ties"))

    def grads(self, run: Run) -> None:
        if self.rescale_gradient and self.banks:
            torch._foreach_div_([bank.grad for bank in self.banks], self.uses)
