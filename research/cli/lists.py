"""``research parameters``, ``hooks``, ``recipes``, ``models``, ``substitutes``: what there is to choose from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from research.cli.commands import Commands
from research.cli.kept import kept
from research.cli.text import first_line, parameter_lines, print_table
from research.errors import UsageError, nearest
from research.parameters.assignments import parse_assignments

PLUGIN = "plugin=FILE"


def add_to(commands: Commands) -> None:
    """Add the commands of this file."""
    parameters = commands.add("parameters", show_parameters, "list every parameter of a run")
    parameters.add_argument("names", nargs="*", metavar=PLUGIN)
    hooks = commands.add("hooks", show_hooks, "list the methods and their parameters")
    hooks.add_argument("names", nargs="*", metavar=f"hook|{PLUGIN}")
    recipes = commands.add("recipes", show_recipes, "list published hyperparameters and what to expect of them")
    recipes.add_argument("names", nargs="*", metavar="recipe")
    models = commands.add("models", show_models, "list networks and their arguments")
    models.add_argument("names", nargs="*", metavar=PLUGIN)
    substitutes = commands.add("substitutes", show_substitutes, "list what may stand in the place of convolutions")
    substitutes.add_argument("names", nargs="*", metavar=f"family|{PLUGIN}")


def show_parameters(options: argparse.Namespace) -> None:
    from research.config import Config

    told, names = what_there_is(options.names)
    if names:
        raise UsageError(f"{names[0]!r}: all parameters are listed; only {PLUGIN} can be given")
    print(*parameter_lines("", Config.parameters().values()), sep="\n")
    show(told["data"])
    for kind, own in told["plugin"].items():
        show(told[kind], own)


def show_hooks(options: argparse.Namespace) -> None:
    told, names = what_there_is(options.names)
    show(told["hooks"], names, "hook", "research hooks")


def show_recipes(options: argparse.Namespace) -> None:
    from research.config.recipes import describe, load_story

    titles = describe()
    stories = {name: load_story(name) for name in options.names or titles}  # an unknown name before anything is printed
    for name, story in stories.items():
        print(f"{name}: {titles[name]}")
        print_table((), [(f"  {word}:", text) for word, text in story.items()])


def show_models(options: argparse.Namespace) -> None:
    told, names = what_there_is(options.names)
    if names:
        raise UsageError(f"{names[0]!r}: all networks are listed; only {PLUGIN} can be given")
    show(told["models"])
    print("torchvision:NAME and timm:NAME: every network of those libraries")


def show_substitutes(options: argparse.Namespace) -> None:
    told, names = what_there_is(options.names)
    show(told["families"], names, "family", "research substitutes")
    print("every family, besides:", *told["every family"], sep="\n")


def what_there_is(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What there is, with what the plugins among ``words`` add (``plugin=FILE``), and the other words."""
    names = [word for word in words if not word.startswith("plugin=")]
    if len(names) == len(words):
        return kept(descriptions) | {"plugin": {}}, names
    from research.config import Config
    from research.config.plugins import find_plugins
    from research.plugins.load import load
    from research.plugins.scope import plugged

    given = parse_assignments(word for word in words if word not in names)
    plugins, _ = find_plugins([given], Config.parameters())
    with plugged(plugins):
        told, own = descriptions(), {}
        for kind, registry in {"hooks": "HOOKS", "models": "MODELS", "families": "LAYERS"}.items():
            added = {name for plugin in load(plugins) for name in plugin.registered[registry]}
            own[kind] = [alike for alike in told[kind] if added & set(alike.split())]
        return told | {"plugin": {kind: listed for kind, listed in own.items() if listed}}, names


def show(known: Mapping[str, Sequence[str]], names: Sequence[str] = (), kind: str = "", listed_by: str = "") -> None:
    """Print the lines of ``names``, or of all that is ``known``; one of another name is no ``kind`` there is."""
    for name in names or known:
        if name not in known:
            raise UsageError(f"unknown {kind} {name!r}{nearest(name, known, listed_by=listed_by)}")
        print(*known[name], sep="\n")


def descriptions() -> dict[str, Any]:
    """The lines that say what there is: of each method, network (alike ones together), family and kind of data."""
    from research.data.augment import Augment
    from research.data.synthetic import Segments
    from research.hooks import HOOKS
    from research.layers.families import LAYERS
    from research.layers.spec import Options, log_names
    from research.models import MODELS
    from research.parameters.signatures import parameters_of

    alike: dict[tuple, list[str]] = {}  # (what it is, its arguments) -> names
    for name, constructor in MODELS.items():
        own = tuple(p for p in parameters_of(constructor).values() if not p.required)
        alike.setdefault((first_line(constructor), own), []).append(name)
    logged = {name: [said for said in log_names().items() if said[1].partition(":")[0] == name] for name in LAYERS}
    return {
        "hooks": {
            name: [f"{name}: {first_line(hook)}", *parameter_lines(f"  {name}.", parameters_of(hook).values())]
            for name, hook in HOOKS.items()
        },
        "models": {
            " ".join(names): [
                ": ".join(filter(None, (" ".join(names), what))),
                *parameter_lines("  model_args.", own),
            ]
            for (what, own), names in alike.items()
        },
        "families": {
            name: [
                f"{name}: {first_line(family)}",
                *parameter_lines("  ", parameters_of(family).values()),
                *(f"  in the log: {log_name} = {spec}" for log_name, spec in logged[name]),
            ]
            for name, family in LAYERS.items()
        },
        "data": {
            name: [f"data_args of {name}", *parameter_lines("  data_args.", parameters_of(owner).values())]
            for name, owner in {"pictures (neutral values)": Augment, "linear and circle": Segments}.items()
        },
        "every family": parameter_lines("  ", parameters_of(Options).values()),
    }
