"""What changes training, one method a file. A new method adds its line here and nothing else."""

from research.hooks.base import Hook
from research.hooks.ema import Ema
from research.hooks.gram import Gram
from research.hooks.logit_stats import LogitStats
from research.hooks.power_grad import PowerGrad

HOOKS: dict[str, type[Hook]] = {
    "ema": Ema,
    "gram": Gram,
    "logit_stats": LogitStats,
    "power_grad": PowerGrad,
}

__all__ = ["HOOKS", "Hook"]
