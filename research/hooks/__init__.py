"""What changes training, one method a file. A new method adds its line here and nothing else."""

from research.hooks.base import Hook
from research.hooks.ema import Ema
from research.hooks.gram import Gram

HOOKS: dict[str, type[Hook]] = {
    "ema": Ema,
    "gram": Gram,
}

__all__ = ["HOOKS", "Hook"]
