"""Every promise of everything that a plugin registers, tried one after another."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from research.config import Config
from research.config.plugins import find_plugins
from research.contracts import data, hooks, layers, networks
from research.contracts.bench import Make, NotAsked
from research.errors import UsageError
from research.plugins.load import load
from research.plugins.scope import plugged

PROMISES = {"HOOKS": hooks, "MODELS": networks, "LAYERS": layers, "DATASETS": data}
PLAIN = Path(__file__).with_name("plain_network.py")


class Result(NamedTuple):
    """What became of a promise: kept, broken, or not asked, with the reason of the latter two."""

    name: str
    promise: str
    outcome: Literal["kept", "broken", "-"]
    why: str = ""


def check(plugins: Sequence[str | Path]) -> Iterator[Result]:
    """Try everything that ``plugins``, files or modules as in ``plugin=``, register; a result each, as it is known.

    Raises:
        UsageError: a plugin cannot be used at all.
    """
    given = [str(each) for each in plugins]
    words, _ = find_plugins([{"plugin": [str(PLAIN), *given]}], Config.parameters())
    own = {kind: [n for p in load(words)[1:] for n in p.registered[kind]] for kind in PROMISES}
    if not any(own.values()):
        raise UsageError(f"plugin={given}: registers nothing")
    with plugged(words):
        for kind, names in own.items():
            for name in names:
                for promise in PROMISES[kind].PROMISES:
                    yield tried(promise, name, words)


def tried(promise: Callable[[str, Make], None], name: str, words: tuple[str, ...]) -> Result:
    """What becomes of one ``promise`` of ``name``, in a folder that is removed afterwards."""
    told = promise.__name__.replace("_", " ")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            promise(name, maker(words, folder))
        except NotAsked as reason:
            return Result(name, told, "-", str(reason))
        except Exception as error:  # of the plugin's own code as well
            text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            return Result(name, told, "broken", (text.splitlines() or [type(error).__name__])[0])
    return Result(name, told, "kept")


def maker(words: tuple[str, ...], folder: str) -> Make:
    """What makes the Configs of runs in ``folder``: two epochs on the digits, on one thread of the CPU."""
    base = {"plugin": words, "runs": folder, "dataset": "digits", "epochs": 2, "lr": 0.05, "device": "cpu"}
    base |= {"threads": 1, "restarts": 0}
    torch.set_num_threads(1)

    def make(**given: object) -> Config:
        return Config.load(base, given)

    return make
