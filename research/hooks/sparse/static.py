"""Static sparse training: a random mask, or that of another run, that never changes."""

from dataclasses import dataclass
from typing import ClassVar

from research.hooks.sparse.base import SparseHook


@dataclass(eq=False)
class StaticSparse(SparseHook):
    """Train under masks that stay as they are: random ones, or those that another run ended with.

    The lottery tickets of Mostafa and Wang (2019) are ``copy_mask_from=RUN copy_init=true``. Their control has the
    masks alone: its initial weights come from a stream of their own, so that they differ from those of RUN under any
    seed.
    """

    moves: ClassVar[bool] = False
