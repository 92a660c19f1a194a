"""What replaces a convolution, one family a class. A new family adds its line here and nothing else."""

from research.layers.acdc import ACDC
from research.layers.base import Geometry, SeparableSubstitute, Substitute
from research.layers.bottleneck import AcrossChannels, Bottleneck, Corners, GroupedFirst
from research.layers.decomposed import CP, TensorTrain, Tucker
from research.layers.grouped import Separable, Shuffle
from research.layers.hashed import FullySepHashed, Hashed, SepHashed
from research.layers.low_rank import Generic, Tied

LAYERS: dict[str, type[Substitute]] = {
    "sep": Separable,
    "hashed": Hashed,
    "sephashed": SepHashed,
    "fullysephashed": FullySepHashed,
    "generic": Generic,
    "lr": Tied,
    "shuffle": Shuffle,
    "acdc": ACDC,
    "tt": TensorTrain,
    "tucker": Tucker,
    "cp": CP,
    # of the log's predecessor
    "bottleneck": Bottleneck,
    "dconv": GroupedFirst,
    "dconv3d": AcrossChannels,
    "conv2x2": Corners,
}

__all__ = ["LAYERS", "Geometry", "SeparableSubstitute", "Substitute"]
