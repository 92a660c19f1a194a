"""Training sparse networks: one method a file, over masks as research/layers/masked.py keeps them."""

from research.hooks.sparse.base import Event, MaskHook, RewiringHook, SparseHook
from research.hooks.sparse.criteria import (
    drop_magnitude_threshold,
    drop_sign_flips,
    drop_smallest,
    drop_smallest_of_all,
    grow_largest,
    grow_random,
)
from research.hooks.sparse.distributions import erk_density
from research.hooks.sparse.static import StaticSparse

__all__ = [
    "Event",
    "MaskHook",
    "RewiringHook",
    "SparseHook",
    "StaticSparse",
    "drop_magnitude_threshold",
    "drop_sign_flips",
    "drop_smallest",
    "drop_smallest_of_all",
    "erk_density",
    "grow_largest",
    "grow_random",
]
