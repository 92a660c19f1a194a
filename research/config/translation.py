"""An original command line of one of the five systems as the equal ``research …`` command.

The seeds' own tables (``seed_commands/``) say what their flags mean; here a program is recognised, its launcher taken
off, and what it means written as the few words that make that Config.
"""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from research.config.config import Config
from research.config.effects import idle, too_late
from research.config.merging import merge
from research.config.seed_commands import cheap_convs, gram, nn_mass_programs, power_grad, sparse
from research.config.seed_commands.command import Reading, Syntax
from research.config.shell import PLACEHOLDER
from research.errors import Note, UsageError, nearest

Read = Callable[[Sequence[str], int], list[Reading]]
PYTHON = re.compile(r"python[\d.]*")
FILES = ("--weight", "--resume")
LAUNCHERS = ("torch.distributed.run", "torch.distributed.launch")
TORCHRUN = Syntax(
    values="nnodes nproc_per_node node_rank master_addr master_port rdzv_backend rdzv_endpoint rdzv_id".split(),
    switches="standalone use_env".split(),
)


class Translation(NamedTuple):
    """``commands`` without the word ``research``, and notes on what differs from the original."""

    commands: list[list[str]]
    notes: list[str]

    def lines(self, environment: Sequence[str] = ()) -> Iterator[str]:
        """What a shell takes: the notes as comments, then the commands behind ``environment``."""
        yield from (f"# {line}" for note in self.notes for line in note.splitlines())
        for command in self.commands:
            yield " ".join([*environment, "research", *(shlex.quote(word) for word in command)])


def translate(words: Sequence[str]) -> Translation:
    """The ``research`` commands that are equal to the original command line ``words``.

    Raises:
        UsageError: not a program that is known, or flags without an equal here; says why.
    """
    if not words:
        raise UsageError("no command")
    program, argv, processes = unlaunched(list(words))
    argv, blanks = _without_placeholders(argv)
    readings = reader_of(program, argv)(argv, processes)
    notes = [f"{blank}: a place to fill in; left out" for blank in blanks]
    commands = []
    for reading in readings:
        notes += [note for note in reading.notes if note not in notes]
        command, told = _written(reading)
        commands.append(command)
        notes += [note for note in told if note not in notes]
    return Translation(commands, notes)


def unlaunched(words: list[str]) -> tuple[str, list[str], int]:
    """The script in ``words``, its arguments, and the number of processes, once what starts it is taken off.

    Raises:
        UsageError: no script is started, or on a number of machines or processes that is not said.
    """
    if words[0].startswith("--"):  # the sparse-training study also lists bare flags
        return "main.py", words, 1
    if PYTHON.fullmatch(PurePath(words[0]).name):
        words = words[1:]
        while words[:1] and words[0] in ("-u", "-O", "-B"):
            words = words[1:]
        if words[:1] == ["-m"] and words[1:2] and words[1] in LAUNCHERS:
            words = ["torchrun", *words[2:]]
    elif PurePath(words[0]).name in ("bash", "sh", "nohup", "time"):
        return unlaunched(words[1:]) if words[1:] else ("", [], 1)
    processes = 1
    if words[:1] == ["torchrun"]:
        script = next((i for i, word in enumerate(words) if word.endswith(".py")), len(words))
        options = TORCHRUN.read(words[1:script])
        processes, nodes = options.get("nproc_per_node", 1), options.get("nnodes", 1)
        if nodes not in (1, "1:1"):
            raise UsageError(f"nnodes={nodes}: translate it for one machine, and add nodes= and rendezvous=HOST:PORT")
        if not isinstance(processes, int):
            raise UsageError(f"nproc_per_node={processes}: give the number of GPUs")
        words = words[script:]
    return (PurePath(words[0]).name, words[1:], processes) if words else ("", [], 1)


def reader_of(program: str, argv: Sequence[str]) -> Read:
    """What reads the arguments of ``program``: scripts of several systems share a name, and differ in their flags."""
    programs: dict[str, Read] = {
        "dist_train.sh": lambda words, processes: gram.read_dist_train(words),
        "train.py": gram.read if gram.speaks(argv) else power_grad.read,
        "train_mlp.py": nn_mass_programs.read_mlp,
        "ldi.py": nn_mass_programs.read_ldi,
        "train_cifar.py": nn_mass_programs.read_cifar,
        "imagenet.py": nn_mass_programs.read_imagenet,
        "train_imagenet.py": nn_mass_programs.read_imagenet,
        "main.py": cheap_convs.read if argv[:1] and not argv[0].startswith("-") else sparse.read,
    }
    if program not in programs:
        raise UsageError(f"{program or 'no program'}: not a command of the five systems{nearest(program, programs)}")
    return programs[program]


def words_of(config: Config, recipe: str = "", said: Container[str] = ()) -> list[str]:
    """The ``key=value`` that make ``config`` over ``recipe``; what has no effect is left out.

    Of methods, also parameters at their default that were ``said``, by their path.
    """
    base = Config.load({"recipe": recipe}, {}) if recipe else Config()
    mine, below, plain = config.to_dict(), base.to_dict(), Config().to_dict()
    unused = idle(vars(config)) | too_late(vars(config)).keys()
    found = {"recipe": recipe} if recipe else {}
    for name, value in mine.items():
        if name in ("model_args", "data_args"):
            found |= {f"{name}.{key}": v for key, v in value.items() if below[name].get(key) != v}
        elif name not in ("hooks", "recipe") and value != below[name]:
            found[name] = value
    if found.get("device") == "cuda" and mine["processes"] >= 1:
        del found["device"]
        found["gpus"] = found.pop("processes", mine["processes"])
    for hook, changed in config.changes().get("hooks", []):
        own = {f"{hook}.{name}": value for name, value in mine["hooks"][hook].items()}
        told = {path: value for path, value in own.items() if path.partition(".")[2] in changed or path in said}
        found |= {path: value for path, value in told.items() if path not in unused} or {hook: True}
    return [f"{name}={_text(value)}" for name, value in found.items() if name not in unused or value == plain.get(name)]


def _written(reading: Reading) -> tuple[list[str], list[str]]:
    """The words of the command that does what ``reading`` says, and what Config told about its parameters."""
    if reading.verb.startswith("run"):
        return [*reading.verb.split(), *(f"{name}={_text(value)}" for name, value in reading.parameters.items())], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = Config.load(reading.parameters, {})
    told = [str(each.message) for each in caught if issubclass(each.category, Note)]
    notes = [note for note in told if not note.endswith("(from the recipe)") and not note.startswith("read as a")]
    if reading.verb == "train":
        said = merge([reading.parameters], names=Config.parameters()).typed
        return ["train", *words_of(config, config.recipe, said)], notes
    if not reading.words:
        return ["evaluate", f"{config.runs}/{config.run_name}"], notes
    network = {name: getattr(config, name) for name in ("dataset", "model", "model_args", "data_root")}
    usual = {"image_size": 224, "eval_resize": 256}
    sizes = {name: config.data_args[name] for name in usual if config.data_args.get(name) not in (None, usual[name])}
    return ["evaluate", *reading.words, *words_of(Config.load(network | {"data_args": sizes}, {}))], []


def _text(value: Any) -> str:
    """``value`` as it is typed."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _without_placeholders(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """``argv`` without flags whose value is still a ``<place to fill>``, and these; a file to be named stays."""
    kept: list[str] = []
    blanks = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name in FILES or kept[-1:] and kept[-1] in FILES:
            kept.append(word)
        elif equals and PLACEHOLDER.fullmatch(value):
            blanks.append(f"{name} {value}")
        elif PLACEHOLDER.fullmatch(word) and kept and kept[-1].startswith("-"):
            blanks.append(f"{kept.pop()} {word}")
        else:
            kept.append(word)
    return kept, blanks
