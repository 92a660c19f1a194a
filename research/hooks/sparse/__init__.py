"""Training sparse networks: one method a file, over masks as research/layers/masked.py keeps them."""

from research.hooks.sparse.base import MaskHook, RewiringHook, SparseHook, forget
from research.hooks.sparse.criteria import (
    drop_magnitude_threshold,
    drop_sign_flips,
    drop_smallest,
    drop_smallest_of_all,
    grow_largest,
    grow_random,
)
from research.hooks.sparse.deepr import DeepR, deepr_step
from research.hooks.sparse.distributions import erk_density
from research.hooks.sparse.dsr import Dsr, allocate, allocate_legacy, dsr_step
from research.hooks.sparse.events import Event
from research.hooks.sparse.first_masks import sparsify
from research.hooks.sparse.itop import Itop, itop_step
from research.hooks.sparse.l3 import L3, l3_step
from research.hooks.sparse.rigl import Rigl, rigl_step
from research.hooks.sparse.set import Set, set_step
from research.hooks.sparse.snfs import Snfs, snfs_step
from research.hooks.sparse.static import StaticSparse

__all__ = [
    "L3",
    "DeepR",
    "Dsr",
    "Event",
    "Itop",
    "MaskHook",
    "RewiringHook",
    "Rigl",
    "Set",
    "Snfs",
    "SparseHook",
    "StaticSparse",
    "allocate",
    "allocate_legacy",
    "deepr_step",
    "drop_magnitude_threshold",
    "drop_sign_flips",
    "drop_smallest",
    "drop_smallest_of_all",
    "dsr_step",
    "erk_density",
    "forget",
    "grow_largest",
    "grow_random",
    "itop_step",
    "l3_step",
    "rigl_step",
    "set_step",
    "snfs_step",
    "sparsify",
]
