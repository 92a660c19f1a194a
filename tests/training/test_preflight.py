"""What is refused before a run is made: batches that a network cannot train on."""

import pytest

from research.errors import UsageError
from research.training.preflight import preflight


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 1},
        {"batch_size": 1, "sync_bn": True},  # one process has nobody to share statistics with
        {"batch_size": 2, "processes": 2},
        {"batch_size": 4, "accumulation": 4},
    ],
)
def test_one_image_a_part_is_refused_where_a_batch_norm_sees_one_value(given, tiny):
    more = given["batch_size"] * 2
    with pytest.raises(UsageError, match=f"one image to each of {given['batch_size']} parts .* give batch_size={more}"):
        preflight(tiny(model="mobilenet_v2", **given))
    preflight(tiny(model="mobilenet_v2", **given | {"batch_size": more}))


def test_one_image_a_part_is_enough_for_other_networks(tiny):
    preflight(tiny(model="resnet8", batch_size=1))  # batch norm over the pixels of the image
    preflight(tiny(batch_size=1))
