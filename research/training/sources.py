"""What methods start from, such as teachers or masks: found before a run is made, loaded before it trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from research.checkpoints import checkpoint, weights
from research.config import Config
from research.data.augment import Augment
from research.data.datasets import arguments, describe
from research.errors import UsageError
from research.hooks import HOOKS, Hook, Source, SourceNetwork
from research.hooks.base import Normalisation
from research.layers.masked import masks_among
from research.models import check_model, create_model, known_for
from research.models.libraries import PUBLISHED, preparation
from research.plugins.scope import with_its_plugins
from research.runs.network import network_of
from research.runs.paths import RunPaths, home_of
from research.runs.run import Run
from research.runs.stored import Stored, find_stored


def own_source(config: Config) -> dict[str, Source]:
    """What the weights of a run with ``config`` begin with, by its parameter; nothing where they are drawn."""
    if config.init:
        return {"init": Source(config.init, wants="weights")}
    return {"continue_from": Source(config.continue_from, wants="newest weights")} if config.continue_from else {}


@with_its_plugins
def sources_of(config: Config) -> dict[str, Source]:
    """What a run with ``config`` and its methods start from, by parameter as it is typed."""
    methods = {
        f"{name}.{parameter}": source
        for name, given in config.hooks.items()
        for parameter, source in HOOKS[name](**given).sources(config).items()
    }
    return own_source(config) | methods


def check_sources(config: Config, coming: Collection[Path] = ()) -> None:
    """Refuse what a run with ``config`` and its methods are to start from where it is missing or unsuitable.

    ``coming`` are folders of runs that will have been trained by then, but not yet.

    Raises:
        UsageError: the first such source.
    """
    refuse_two_beginnings(config)
    for key, source in sources_of(config).items():
        if place_of(source, config).resolve() not in coming and not (key in own_source(config) and has_begun(config)):
            find_source(key, source, config)


def refuse_two_beginnings(config: Config) -> None:
    """Refuse ``init`` or ``continue_from`` beside a method that brings weights, or masks, of its own.

    Raises:
        UsageError: names both.
    """
    brings = {"weights", "initial weights"} | ({"newest weights"} if config.continue_from else set())
    for own in own_source(config):
        for key, source in sources_of(config).items():
            if key != own and source.wants in brings:
                raise UsageError(f"{own} and {key}: both say what weights or masks begin with; give one")


def has_begun(config: Config) -> bool:
    """Whether the run of ``config`` has a checkpoint, which holds all that its own weights began with."""
    return checkpoint.newest_step(RunPaths(home_of(config)).checkpoints) >= 0


def places(config: Config) -> list[Path]:
    """The folders and files that a run with ``config`` and its methods start from, where a run or a file is named."""
    return [place_of(source, config).resolve() for source in sources_of(config).values() if source.place]


def load_sources(run: Run) -> dict[Hook, dict[str, Any]]:
    """What the methods of ``run`` start from, by method and parameter, see :class:`research.hooks.base.Source`."""
    return {
        hook: {
            parameter: load_source(f"{name}.{parameter}", source, run)
            for parameter, source in hook.sources(run.config).items()
        }
        for name, hook in run.hooks.items()
    }


def find_source(key: str, source: Source, config: Config) -> Stored | None:
    """The stored weights that ``source`` names, for a run with ``config``; none for a network that is not stored.

    Raises:
        UsageError: there is nothing there, it is the run itself, or it is a network without weights.
    """
    if (source.wants == "network" and not source.place) or _library(source) in PUBLISHED:
        if source.wants not in ("network", "weights"):
            raise UsageError(f"{key}={source.place!r}: expected a run or a file; published weights alone are for init")
        return None
    path = place_of(source, config)
    if path.resolve() == home_of(config):
        raise UsageError(f"{key}={source.place!r}: a run cannot start from itself")
    if source.wants == "network" and not path.exists() and not check_model(source.place, {}):
        raise UsageError(
            f"{key}={source.place!r}: is a network's name, and untrained it cannot teach; give a run, a file of "
            "weights, torchvision:NAME or timm:NAME"
        )
    assumed = {"dataset": config.dataset, "model": config.model, "model_args": config.model_args}
    return find_stored(path, source.given, assumed, last=source.wants == "newest weights" and path.is_dir())


def place_of(source: Source, config: Config) -> Path:
    """The run's folder or the file that ``source`` names for ``config``, whose seed stands for ``{seed}``."""
    place = source.place.replace("{seed}", str(config.seed))
    path = Path(place)
    return path if path.exists() or path.name != place else Path(config.runs).resolve() / path  # a run's name


def _library(source: Source) -> str:
    return source.place.partition(":")[0]


def own_tensors(key: str, source: Source, config: Config) -> tuple[dict[str, Tensor], str]:
    """The tensors that a run's own weights begin with, masks left out, and their origin as a phrase for the user.

    Raises:
        UsageError: as :func:`find_source`, or their inputs were normalised otherwise than those of the run.
    """
    stored = find_source(key, source, config)
    if stored is None:
        network = create_model(source.place, **PUBLISHED[_library(source)])
        return network.state_dict(), f"{source.place} as published"
    refuse_other_inputs(key, stored, config)
    masks = masks_among(stored.tensors) if key == "init" else {}
    tensors = {name: value for name, value in stored.tensors.items() if name not in masks}
    return tensors, f"{stored.config.model} of {stored.path}"


def refuse_other_inputs(key: str, stored: Stored, config: Config) -> None:
    """Refuse weights of a run whose inputs had another mean and deviation, unless ``config`` says which it wants.

    Raises:
        UsageError: with both, as they are typed.
    """
    own, theirs = _normalisation(config, as_published=False), _normalisation(stored.config, as_published=False)
    if own == theirs or len(own[0]) != len(theirs[0]) or {"mean", "std", "normalize"} & config.data_args.keys():
        return
    given, kept = (
        " ".join(f"data_args.{n}=[{','.join(f'{v:g}' for v in values)}]" for n, values in (("mean", m), ("std", s)))
        for m, s in (theirs, own)
    )
    raise UsageError(
        f"{key}={config.init or config.continue_from}: its inputs were normalised otherwise; give {given} to take that "
        f"along, or {kept} to keep that of {config.dataset}"
    )


def load_source(key: str, source: Source, run: Run) -> SourceNetwork | Mapping[str, Tensor]:
    """What ``source`` stands for, see :class:`research.hooks.base.Source`; ``key`` is how a user names it."""
    stored = find_source(key, source, run.config)
    if source.wants == "initial weights":
        return _initial_weights(stored, run)
    return _network(key, source, stored, run) if source.wants == "network" else stored.tensors


def _initial_weights(stored: Stored, run: Run) -> Mapping[str, Tensor]:
    """What the network of a stored run began with, before masks: copied from another run, or drawn again."""
    for key, source in sources_of(stored.config).items():
        if key == "init":
            return own_tensors(f"{key} of {stored.path}", source, stored.config)[0]
        if source.wants in ("initial weights", "weights"):
            origin = find_source(f"{key} of {stored.path}", source, stored.config)
            return origin.tensors if source.wants == "weights" else _initial_weights(origin, run)
    info = run.train_loader.info
    return network_of(stored.config, info.classes, info.shape, run.device, without="masks").state_dict()


def _network(key: str, source: Source, stored: Stored | None, run: Run) -> SourceNetwork:
    info = run.train_loader.info
    if stored:
        config, origin = stored.config, f"{stored.config.model} of {stored.path}"
    elif source.place:
        config = Config.load({"model": source.place, "model_args": PUBLISHED[_library(source)]})
        origin = f"{source.place} as published"
        if (own := known_for(source.place)[0]) != info.classes:
            raise UsageError(
                f"{key}={source.place!r}: was published for {own} classes, the data has {info.classes}; give a run or "
                "a file of weights that was trained on it"
            )
    else:
        config, origin = run.config, "the run's own network as it was initialised, untrained"
    network = network_of(config, info.classes, info.shape, run.device)
    if stored:
        weights.load_into(network, stored.tensors, f"{key}={source.place!r} for {info.classes} classes")
    mean, std = source.normalisation or _normalisation(config, as_published=bool(source.place) and not stored)
    if (mean, std) != (info.mean, info.std) and len(mean) == len(info.mean):
        renormalise(network, (info.mean, info.std), (mean, std))
        origin += f", with inputs normalised as in its own training (mean {list(mean)}, deviation {list(std)})"
    return SourceNetwork(network, origin)


@with_its_plugins
def _normalisation(config: Config, as_published: bool) -> Normalisation:
    """Mean and deviation per channel that the network of ``config`` was trained with; empty where nothing is known.

    What a library records belongs to the weights that it published, not to a run of the same architecture.
    """
    if as_published and (published := preparation(config.model)):
        return published.mean, published.std
    dataset = describe(config.dataset)
    if dataset.kind == "vectors":
        return dataset.mean, dataset.std
    return Augment(**arguments(config.dataset, config.data_args)[0]).normalisation(dataset)


def renormalise(network: nn.Module, given: Normalisation, own: Normalisation) -> None:
    """Let ``network`` take inputs (N, C, ...) that are normalised as ``given``, and see them as its ``own``."""
    like = next(network.parameters()).detach()
    (mean, std), (own_mean, own_std) = (like.new_tensor(pair) for pair in (given, own))
    scale, shift = std / own_std, (mean - own_mean) / own_std

    def change(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        shape = (-1, *[1] * (inputs[0].ndim - 2))
        return (inputs[0] * scale.view(shape) + shift.view(shape),)

    network.register_forward_pre_hook(change)
