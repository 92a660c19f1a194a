import pytest

from research.config import Config
from research.trained.network_cost import count_run, network_cost


@pytest.mark.parametrize(
    "given",
    [
        {"dataset": "cifar10", "model": "resnet8", "data_args": {"image_size": 16, "crop": "resized"}},
        {"recipe": "cifar-minutes"},
        {"dataset": "digits", "model": "mnist_mlp"},
    ],
    ids=["images made smaller", "a recipe's data set", "a data set of small images"],
)
def test_a_network_is_counted_for_the_inputs_that_it_trains_on(given):
    assert count_run(given).cost == network_cost(Config.load(given)).cost


def test_without_a_data_set_a_network_is_counted_for_the_data_that_it_is_known_for():
    assert count_run({"model": "resnet18"}).input_shape == (3, 224, 224)
    assert count_run({"model": "resnet18"}, (3, 64, 64)).input_shape == (3, 64, 64)
