"""Weights of other origins: how pictures are prepared for them, by record and by word."""

import pytest

from research.config import Config
from research.models.libraries import preparation
from research.runs.stored import as_published

MODEL = "timm:mixnet_xl"
RECORD = preparation(MODEL)


def prepared(**given) -> dict:
    """``data_args`` of a foreign file of the network MODEL, for what a user gives of them."""
    asked = {"dataset": "imagefolder", "model": MODEL, "data_args": given}
    return dict(as_published(Config.load(asked), {"dataset": "imagefolder"}, asked).data_args)


def test_pictures_are_prepared_as_the_library_has_it_on_record():
    assert (RECORD.interpolation, RECORD.crop_pct) == ("bicubic", 0.875)  # folders: bilinear, 256
    on_record = {"mean": [*RECORD.mean], "std": [*RECORD.std], "interpolation": "bicubic", "crop_pct": 0.875}
    with pytest.warns(UserWarning, match="as on record, mean=.*, interpolation=bicubic, crop_pct=0.875"):
        assert prepared() == on_record | {"eval_resize": 0}


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"interpolation": "bilinear"}, []),
        ({"crop_pct": 0.9}, []),
        ({"mean": [0.5, 0.5, 0.5]}, []),
        ({"eval_resize": 300}, ["crop_pct"]),  # decides the crop
        ({"normalize": False}, ["mean", "std"]),
        ({"normalize": True}, []),
    ],
)
def test_what_is_given_wins_over_the_record_and_what_it_leaves_no_room_for(given, left_out):
    with pytest.warns(UserWarning):
        found = prepared(**given)
    assert {name: found[name] for name in given} == given
    kept = {name for name in RECORD._fields if name not in (*given, *left_out)}
    assert kept <= set(found) and not set(left_out) & set(found)


def test_networks_without_a_record_and_images_of_one_size_stay_as_they_are():
    for asked in ({"dataset": "imagefolder", "model": "resnet18"}, {"dataset": "cifar10", "model": MODEL}):
        assert as_published(Config.load(asked), asked) == Config.load(asked)
