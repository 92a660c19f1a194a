"""Recipes load, and say what was published."""

import re
from dataclasses import fields

import pytest

from research.config import Config
from research.config.recipes import STORY, describe, load_recipe, load_story, recipe_names
from research.errors import UsageError

GRAM = {"lr": 0.1, "momentum": 0.9, "schedule": "cosine", "schedule_by": "step", "warmup_epochs": 0, "smoothing": 0}
GRAM |= {"optimizer": "sgd", "clip_norm": 0, "amp": "off", "cooldown_epochs": 0, "seed": 42, "hooks": {}}
IMAGENET = {"dataset": "imagenet", "batch_size": 256, "min_lr": 1e-7, "nesterov": True, "decay_norm_and_bias": False}
CIFAR = {"batch_size": 128, "min_lr": 1e-6, "nesterov": False, "decay_norm_and_bias": True}
JITTERED = {"crop": "resized", "image_size": 224, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "flip": True}
JITTERED |= {"jitter": 0.06, "cutout": 0, "eval_resize": 256}
CUT = {"crop": "pad", "padding": 4, "flip": True, "cutout": 16, "jitter": 0}

# the table of the GraM study: (fields, data_args)
PUBLISHED = {
    "gram-imagenet-resnet": (GRAM | IMAGENET | {"model": "resnet18", "epochs": 120, "weight_decay": 1e-4}, JITTERED),
    "gram-imagenet-mobilenet_v1": (
        GRAM | IMAGENET | {"model": "mobilenet_v1", "epochs": 90, "weight_decay": 4e-5},
        JITTERED,
    ),
    "cifar-600": (GRAM | CIFAR | {"dataset": "cifar10", "epochs": 600, "weight_decay": 1e-4}, CUT),
    "cifar-200": (GRAM | CIFAR | {"dataset": "cifar100", "epochs": 200, "weight_decay": 5e-4}, CUT),
}


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_is_a_valid_config_without_methods(name):
    assert re.fullmatch(r"[a-z0-9_]+(-[a-z0-9_]+)*", name)
    config = Config.load({"recipe": name})
    assert not config.hooks
    assert set(load_recipe(name)) <= {f.name for f in fields(Config)} - {"hooks", "recipe"}


@pytest.mark.parametrize("name", recipe_names())
def test_model_of_a_recipe_can_be_replaced(name):
    """A recipe gives no model_args, which another model might not take."""
    other = "cifar_vgg16" if "cifar" in name else "seresnet50" if "imagenet" in name else "resnet8"
    assert Config.load({"recipe": name, "model": other, "epochs": 20}).model == other


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_equals_the_published_table(name):
    config = Config.load({"recipe": name})
    expected, augmentation = PUBLISHED[name]
    assert {key: getattr(config, key) for key in expected} == expected
    assert {key: given for key, given in _augmentation(config).items() if key in augmentation} == augmentation


def _augmentation(config: Config) -> dict:
    """All data arguments, with the defaults of the data set."""
    from research.data.datasets import arguments

    values, problems = arguments(config.dataset, config.data_args)
    assert not problems
    return values


def test_given_parameters_win_over_the_recipe():
    config = Config.load({"recipe": "cifar-200", "epochs": 2, "data_args": {"cutout": 0}})
    assert (config.epochs, config.lr, config.data_args["cutout"], config.data_args["padding"]) == (2, 0.1, 0, 4)


def test_every_recipe_says_what_it_is():
    assert list(describe()) == recipe_names()
    assert all(10 < len(line) <= 110 and not line.startswith("#") for line in describe().values())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_tells_its_story(name):
    story = load_story(name)
    assert tuple(story) == STORY
    assert all(isinstance(text, str) and text and "\n" not in text for text in story.values())
    assert re.search(r"\d", story["expected"]) or story["expected"].startswith("not known")
    if story["here"] != "not run at full length":  # a number, and the command that gave it
        assert re.search(r"\d.*\(research (train|sweep) ", story["here"])


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(UsageError, match="unknown recipe 'cifar-20'; did you mean 'cifar-200'"):
        load_recipe("cifar-20")
