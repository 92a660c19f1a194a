"""What replaces a convolution, one family of substitutes a class. A new family adds its line here and nothing else."""

from research.layers.base import Substitute
from research.layers.families.acdc import ACDC
from research.layers.families.bottleneck import AcrossChannels, Bottleneck, Corners, GroupedFirst
from research.layers.families.decomposed import CP, TensorTrain, Tucker
from research.layers.families.grouped import Separable, Shuffle
from research.layers.families.hashed import FullySepHashed, Hashed, SepHashed
from research.layers.families.low_rank import Generic, Tied

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
