"""Static sparse training: a random mask, or that of another run, that never changes."""

from dataclasses import dataclass

from research.hooks.sparse.base import SparseHook


@dataclass(eq=False)
class StaticSparse(SparseHook):
    """Train under masks that stay as they are: random ones, or those that another run ended with.

    The lottery-ticket control of Mostafa and Wang (2019) is ``copy_mask_from=RUN copy_init=true``.
    """
