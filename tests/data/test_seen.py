"""What training sees of an image: the very pixels of a run's batches."""

import numpy as np
import pytest

from research.config import Config
from research.data.choice import make_loader, make_mixing
from research.data.seen import seen
from research.errors import UsageError


def config(batch_size=100, **data_args) -> Config:
    return Config.load({"data_args": data_args, "batch_size": batch_size, "seed": 3, "device": "cpu"})


def in_training(config: Config, epoch: int) -> dict[int, tuple]:
    """Every image's input and target in an epoch, by its place in the training set."""
    loader = make_loader(config, "train")
    loader.set_epoch(epoch)
    places = loader.rows(0, len(loader)).reshape(len(loader), -1)
    mixing = make_mixing(config, loader)
    found = {}
    for batch, (rows, (inputs, targets)) in enumerate(zip(places, loader, strict=True)):
        found |= dict(zip(rows.tolist(), zip(*mixing(inputs, targets, epoch, batch), strict=True), strict=True))
    return found


@pytest.mark.parametrize(
    "data_args",
    [
        {},
        {"crop": "pad", "padding": 1, "flip": True, "cutout": 3, "jitter": 0.3},
        {"randaugment": 2, "erase": 0.5},
        {"crop": "pad", "padding": 1, "mixup": 0.5},
        {"mixup": 0.5, "cutmix": 1.0},
    ],
)
def test_pixels_and_targets_are_those_of_training(data_args):
    given = config(**data_args)
    shown = seen(given, range(20), [0, 2])
    for column, epoch in enumerate(shown.epochs):
        trained = in_training(given, epoch)
        for image in shown.images:
            if image not in trained:  # left over after the last full step
                assert {"mixup", "cutmix"} & data_args.keys() and np.isnan(shown.augmented[image, column]).all()
                continue
            inputs, target = trained[image]
            expected = inputs.permute(1, 2, 0).numpy() * 0.3761 + 0.3055
            np.testing.assert_allclose(shown.augmented[image, column], expected.clip(0, 1), atol=1e-6)
            label = shown.labels[image]
            assert shown.shares[image, column] == pytest.approx(float(target[label]) if target.ndim else 1)


def test_an_image_that_an_epoch_leaves_out_has_no_form_in_it():
    given = config(batch_size=1000, mixup=0.5)  # of 1,437 images
    shown = seen(given, range(30), [0])
    trained = in_training(given, 0)
    left_out = np.isnan(shown.augmented).all((1, 2, 3, 4))
    np.testing.assert_array_equal(left_out, [image not in trained for image in shown.images])
    assert 0 < left_out.sum() < 30


def test_plain_images_are_those_that_are_stored():
    from sklearn.datasets import load_digits

    shown = seen(config(crop="pad", padding=1, cutout=3), [5, 0], [0])
    stored = load_digits().images / 16
    for picture in shown.plain[..., 0]:
        assert min(np.abs(stored - picture).max((1, 2))) < 0.01


def test_vectors_and_images_that_are_not_there_are_refused():
    with pytest.raises(UsageError, match="circle is a set of vectors"):
        seen(Config.load({"dataset": "circle", "model": "dense_mlp"}), [0], [0])
    with pytest.raises(UsageError, match="digits has 1,4.. training images, and no image 2000"):
        seen(config(), [0, 2000], [0])
