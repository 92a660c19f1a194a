"""``research parameters``, ``hooks``, ``recipes``, ``models``, ``substitutes``: what there is to choose from."""

from __future__ import annotations

import argparse

from research.cli.commands import Commands
from research.cli.text import first_line, print_parameters, print_table
from research.errors import UsageError, nearest


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    commands.add("parameters", show_parameters, "list every parameter of a run")
    hooks = commands.add("hooks", show_hooks, "list the methods and their parameters")
    hooks.add_argument("names", nargs="*", metavar="hook")
    recipes = commands.add("recipes", show_recipes, "list published hyperparameters and what to expect of them")
    recipes.add_argument("names", nargs="*", metavar="recipe")
    commands.add("models", show_models, "list networks and their arguments")
    substitutes = commands.add("substitutes", show_substitutes, "list what may stand in the place of convolutions")
    substitutes.add_argument("names", nargs="*", metavar="family")


def show_parameters(options: argparse.Namespace) -> None:
    from research.config import Config

    print_parameters("", Config.parameters().values())


def show_hooks(options: argparse.Namespace) -> None:
    from research.hooks import HOOKS
    from research.parameters.signatures import parameters_of

    for name in options.names or HOOKS:
        if name not in HOOKS:
            raise UsageError(f"unknown hook {name!r}{nearest(name, HOOKS, listed_by='research hooks')}")
        print(f"{name}: {first_line(HOOKS[name])}")
        print_parameters(f"  {name}.", parameters_of(HOOKS[name]).values())


def show_recipes(options: argparse.Namespace) -> None:
    from research.config.recipes import describe, load_story

    titles = describe()
    stories = {name: load_story(name) for name in options.names or titles}  # an unknown name before anything is printed
    for name, story in stories.items():
        print(f"{name}: {titles[name]}")
        print_table((), [(f"  {word}:", text) for word, text in story.items()])


def show_models(options: argparse.Namespace) -> None:
    from research.models import MODELS
    from research.parameters.signatures import parameters_of

    alike: dict[tuple, list[str]] = {}  # (what it is, its arguments) -> names, so that families are one entry
    for name, constructor in MODELS.items():
        own = tuple(p for p in parameters_of(constructor).values() if not p.required)
        alike.setdefault((first_line(constructor), own), []).append(name)
    for (what, own), names in alike.items():
        print(": ".join(filter(None, (" ".join(names), what))))
        print_parameters("  model_args.", own)
    print("torchvision:NAME and timm:NAME: every network of those libraries")


def show_substitutes(options: argparse.Namespace) -> None:
    from research.layers.families import LAYERS
    from research.layers.spec import Options, log_names
    from research.parameters.signatures import parameters_of

    for name in options.names or LAYERS:
        if name not in LAYERS:
            raise UsageError(f"unknown family {name!r}{nearest(name, LAYERS, listed_by='research substitutes')}")
        print(f"{name}: {first_line(LAYERS[name])}")
        print_parameters("  ", parameters_of(LAYERS[name]).values())
        for log_name, spec in log_names().items():
            if spec.partition(":")[0] == name:
                print(f"  in the log: {log_name} = {spec}")
    print("every family, besides:")
    print_parameters("  ", parameters_of(Options).values())
