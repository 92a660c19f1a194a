"""Methods that change training, one per file. A new method adds its line here and nothing else."""

from research.hooks.auxiliary import Auxiliary
from research.hooks.base import Hook, Source, SourceNetwork
from research.hooks.distill import Distill
from research.hooks.drop_path import ScheduledDropPath
from research.hooks.ema import Ema
from research.hooks.gram import Gram
from research.hooks.logit_stats import LogitStats
from research.hooks.power_grad import PowerGrad
from research.hooks.prune import Prune
from research.hooks.sparse import L3, DeepR, Dsr, Itop, Rigl, Set, Snfs, StaticSparse
from research.hooks.tied import Tied

HOOKS: dict[str, type[Hook]] = {
    "auxiliary": Auxiliary,
    "deepr": DeepR,
    "distill": Distill,
    "drop_path": ScheduledDropPath,
    "dsr": Dsr,
    "ema": Ema,
    "gram": Gram,
    "itop": Itop,
    "l3": L3,
    "logit_stats": LogitStats,
    "power_grad": PowerGrad,
    "prune": Prune,
    "rigl": Rigl,
    "set": Set,
    "snfs": Snfs,
    "static_sparse": StaticSparse,
    "tied": Tied,
}

__all__ = ["HOOKS", "Hook", "Source", "SourceNetwork"]
