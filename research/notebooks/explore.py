"""The panels of ``explore.ipynb``: a layer over epochs, and what augmentation does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipywidgets import BoundedIntText, Dropdown, IntSlider, Text, Widget
from matplotlib.figure import Figure

from research.config import Config
from research.data.datasets import DATASETS, describe
from research.data.seen import seen
from research.errors import UsageError, nearest
from research.figures.layer import LayerView, layer_views
from research.figures.pictures import augmented_images
from research.frames.gram import gram_epochs, load_gram
from research.notebooks.panel import Panel
from research.parameters import yaml_1_2
from research.parameters.assignments import parse_assignments
from research.runs.paths import RunPaths
from research.trained.kept import KeptNetwork, spans

NEW, NONE = "(a new network)", "(none)"
MAKE_ONE = "`research train model=resnet8 gram.k=8 epochs=3 name=demo-gram` makes one"


class LayerPanel(Panel):
    """A layer of a run, or of a network that nobody has trained, over epochs; the same of another run beside it.

    Args:
        runs: folder of runs; it need not exist.
        new: the network that is offered beside theirs.
        run: name of a run; empty: the one that was written to last.
        beside: name of another one; empty: none.
        layer: its name; empty: the first that GraM measured, else the first.
        epoch: epochs trained; none: the last with a measurement of GraM and weights, else with weights.

    Raises:
        UsageError: there is no such run, layer or epoch.
    """

    def __init__(
        self, runs: Path | str, new: Config, run: str = "", beside: str = "", layer: str = "", epoch: int | None = None
    ):
        folders = [path.parent for path in Path(runs).glob("*/config.json")]
        self.folders = {folder.name: folder for folder in sorted(folders, key=_written, reverse=True)}
        self.new = new
        names = [*self.folders, NEW]
        self.run = _dropdown("run", names, run or names[0])
        self.beside = _dropdown("beside", [NONE, *names], beside or NONE)
        self._look()
        layers = self._layers()
        self.layer = _dropdown("layer", layers, layer or self._first(layers))
        last = max(network.epochs for network in self.networks.values())
        epoch = self._fullest() if epoch is None else epoch
        if not 0 <= epoch <= last:
            raise UsageError(f"epoch={epoch}: expected 0 to {last}, the epochs that are done")
        self.epoch = IntSlider(epoch, 0, last, description="epoch", continuous_update=False)
        super().__init__([self.run, self.beside], [self.layer, self.epoch])

    def follow(self, control: Widget) -> None:
        if control not in (self.run, self.beside):
            return
        self._look()
        layers, before = self._layers(), self.layer.value
        self.layer.options = layers
        self.layer.value = before if before in layers else self._first(layers)
        self.epoch.max = max(network.epochs for network in self.networks.values())

    def draw(self) -> tuple[Figure, str]:
        return layer_views([self._view(name) for name in self.networks]), self._told()

    def _look(self) -> None:
        """Look at the chosen networks, anew each time, since a run may go on."""
        chosen = dict.fromkeys(name for name in (self.run.value, self.beside.value) if name != NONE)
        self.networks = {
            name: KeptNetwork.of_run(self.folders[name]) if name in self.folders else KeptNetwork(self.new)
            for name in chosen
        }
        self.measured = {name: gram_epochs(self.folders[name]) if name in self.folders else [] for name in chosen}

    def _layers(self) -> list[str]:
        return self.networks[self.run.value].layers()

    def _first(self, layers: list[str]) -> str:
        """The layer to begin with: the first that GraM measured, else the first of all."""
        name = self.run.value
        return load_gram(self.folders[name]).layers[0].name if self.measured[name] else layers[0]

    def _fullest(self) -> int:
        """The last epoch with weights and a measurement, else with weights."""
        kept, measured = self.networks[self.run.value].kept, self.measured[self.run.value]
        return max(set(kept) & set(measured) or kept, default=0)

    def _told(self) -> str:
        lines = [] if self.folders else [f"There are no runs yet; {MAKE_ONE}."]
        for name, network in self.networks.items():
            gram = f"; GraM measured after {spans(self.measured[name])}" if self.measured[name] else ""
            lines.append(f"{name}: weights are kept after epochs {spans(network.kept)}{gram}")
        return "\n".join(lines)

    def _view(self, name: str) -> LayerView:
        network, layer, epoch = self.networks[name], self.layer.value, self.epoch.value
        title = f"{name}: {layer} after {epoch} epoch{'s' * (epoch != 1)}"
        if (kept := network.kept.get(epoch)) and kept.steps:
            title += f" and {kept.steps} steps"
        found: dict[str, Any] = {"title": title}
        try:
            found["state"] = network.layer(layer, epoch)
            found["initial"] = network.layer(layer, 0) if epoch and 0 in network.kept else None
        except UsageError as error:
            found["no_state"] = str(error)
        if epoch in self.measured[name]:
            record = load_gram(self.folders[name], epoch)
            found |= {"gram": next((each for each in record.layers if each.name == layer), None), "k": record.k}
            found["no_gram"] = "GraM measures only convolutions of several taps"
        else:
            found["no_gram"] = f"GraM did not measure after {epoch} epochs"
        return LayerView(**found)


class PicturePanel(Panel):
    """Images of a data set: as evaluation would see them, and what a run would see of them in each of its first epochs.

    Args:
        base: the parameters of a run, which decide all but what the controls do; its seed among them.
        count: images, a row each.
        epochs: a column each.

    Raises:
        UsageError: unknown data set.
    """

    def __init__(self, base: Config, first: int = 0, count: int = 6, epochs: int = 6):
        self.base, self.count, self.epochs = base, count, range(epochs)
        self.dataset = _dropdown("dataset", list(DATASETS), base.dataset)
        words = _words({**describe(base.dataset).augment, **base.data_args})
        self.augmentation = Text(words, description="data_args", continuous_update=False, layout={"width": "500px"})
        self.first = BoundedIntText(first, 0, 10**9, description="first image")
        super().__init__([self.dataset, self.first], [self.augmentation])

    def follow(self, control: Widget) -> None:
        if control is self.dataset:
            self.augmentation.value, self.first.value = _words(describe(self.dataset.value).augment), 0

    def draw(self) -> tuple[Figure, str]:
        given = parse_assignments(shlex.split(self.augmentation.value))
        chosen = {"dataset": self.dataset.value, "data_args": given, "device": "cpu"}
        config = Config.load({**self.base.to_dict(), "data_args": {}}, chosen)
        shown = seen(config, range(self.first.value, self.first.value + self.count), self.epochs)
        return augmented_images(shown), ""


def _words(arguments: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={yaml_1_2.typed(yaml_1_2.plain(value))}" for name, value in arguments.items())


def _dropdown(name: str, options: list[str], value: str) -> Dropdown:
    if value not in options:
        raise UsageError(f"{name}={value!r}: there is none{nearest(value, options)}")
    return Dropdown(options=options, value=value, description=name)


def _written(folder: Path) -> float:
    """When a run was written to last."""
    paths = RunPaths(folder)
    return max(path.stat().st_mtime for path in (paths.config, paths.status) if path.exists())
