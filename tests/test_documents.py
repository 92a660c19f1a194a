"""Documents cannot drift: their tables, links and examples are held against the code.

A comment above a block of code says how it is tested: ``<!-- slow -->`` runs with ``make slow``, ``<!-- not run: WHY
-->`` is only read, ``<!-- given: STATEMENTS -->`` comes before an example in Python, and ``<!-- checked: FILE -->`` is
run by that test, which looks at what comes of it. Every other block runs here.
"""

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import REPOSITORY

from research import cli
from research.cli import run, studies, trained
from research.config import Config
from research.config.recipes import describe as recipes
from research.data.datasets import DATASETS
from research.errors import UsageError
from research.hooks import HOOKS
from research.layers.families import LAYERS
from research.models import MODELS
from research.notebooks.execute import find, read_parameters
from research.parameters.assignments import parse_assignments
from research.parameters.signatures import parameters_of
from research.studies.study import expand, read_study

DOCUMENTS = [
    REPOSITORY / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*README.md", "CHANGELOG.md", "*OUTSIDE.md"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split()
]  # fmt: skip
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.S)


class Block(NamedTuple):
    document: Path
    language: str
    code: str
    mark: str

    def __str__(self):
        return f"{self.document.relative_to(REPOSITORY)}: {self.code.splitlines()[0]}"


BLOCKS = [
    Block(path, found["language"], found["code"], found["mark"] or "")
    for path in DOCUMENTS
    for found in BLOCK.finditer(path.read_text())
]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def first_column(document: str) -> list[str]:
    """Every name in backticks in the first column of a table."""
    cells = [line.split("|")[1] for line in document.splitlines() if line.startswith("| ")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


# -- tables -------------------------------------------------------------------------------------------------------


def test_the_first_page_is_a_page():
    assert len(read("README.md").splitlines()) <= 150


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ("research/hooks/README.md", HOOKS),
        ("research/layers/README.md", LAYERS),
        ("research/data/README.md", DATASETS),
        ("research/config/README.md", recipes()),
    ],
)
def test_tables_list_everything_there_is(document, names):
    assert set(names) <= set(first_column(read(document)))


def test_sparse_methods_are_told_in_their_own_room():
    masks = [name for name, hook in HOOKS.items() if hook.exclusive == "masks"]
    assert {*masks, "tied"} <= set(first_column(read("research/hooks/sparse/README.md")))


def test_every_network_is_in_the_table():
    listed = first_column(read("research/models/README.md"))
    stems = [name.rstrip("0123456789") for name in listed]
    shortened = {stem + part for stem in stems for part in listed if part.isdigit()}  # `resnet8` `20` `32`
    assert {name for name in MODELS if not name.startswith("wrn-")} <= {*listed, *shortened}  # `wrn-<depth>-<width>`


@pytest.mark.parametrize("folder", ["notebooks/*.ipynb", "notebooks/analysis/*.ipynb"])
def test_every_notebook_is_in_the_table(folder):
    for path in REPOSITORY.glob(folder):
        name = path.relative_to(REPOSITORY / "notebooks").with_suffix("").as_posix()
        assert f"| `{name}` |" in read("notebooks/README.md")


def test_every_study_is_told_somewhere():
    told = "\n".join(path.read_text() for path in DOCUMENTS)
    for path in (REPOSITORY / "notebooks" / "studies").glob("*.yaml"):
        assert re.search(rf"`{path.stem.removesuffix('-teacher')}`|{path.stem}\.yaml", told), path.stem


def test_defaults_in_tables_are_those_of_the_code():
    """A row ``| `gram.k` | 8 | …`` of a table with the columns parameter and default."""
    checked = 0
    for path in DOCUMENTS:
        for table in re.findall(r"^\| parameter \| default \|.*\n\|[- |:]+\n((?:\|.*\n?)+)", path.read_text(), re.M):
            hook = None
            for line in table.splitlines():
                names, default = (cell.strip() for cell in line.split("|")[1:3])
                names = re.findall(r"`([^`]+)`", names)
                hook = names[0].split(".")[0] if "." in names[0] else hook
                known = parameters_of(HOOKS[hook])
                for name, told in zip(names, default.split(", "), strict=False):
                    value = known[name.split(".")[-1]].default
                    if re.fullmatch(r"[\w.+-]+", told) and value not in ("", ()):
                        assert told == str(value).lower() or float(told) == value, line
                        checked += 1
    assert checked >= 10


# -- links --------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """What hosting sites make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.S)):
        if target.startswith(("http:", "https:")):
            continue
        file, _, place = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.M)
            assert place in map(anchor, headings), target


# -- examples -----------------------------------------------------------------------------------------------------


def commands_of(block: Block) -> list[str]:
    lines = [line.split(" #")[0].strip() for line in block.code.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def documented_commands() -> list[str]:
    """Every line of a shell block and every command of the demo."""
    lines = [line for block in BLOCKS if block.language in ("sh", "bash") for line in commands_of(block)]
    demo = subprocess.run(["make", "-n", "-s", "demo", "INSTALLED="], cwd=REPOSITORY, capture_output=True, text=True)
    lines += [line.strip() for line in demo.stdout.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(("research ", "make ", "python "))))


@pytest.mark.parametrize("line", documented_commands())
def test_documented_command_is_accepted(line, tmp_path, monkeypatch):
    program, *words = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^([a-z]+):", read("Makefile"), re.M)
        assert {word for word in words if "=" not in word} <= set(targets)
        return
    if program == "python":
        assert (REPOSITORY / words[0]).is_file()
        return
    options = cli.parser().parse_args(words)
    given = parse_assignments(getattr(options, "assignments", []))
    if "plugin" in given:
        (example,) = [b for b in BLOCKS if b.language == "python" and b.code.startswith(f'"""{given["plugin"]}: ')]
        (tmp_path / given["plugin"]).write_text(example.code)
        monkeypatch.chdir(tmp_path)
    if options.command is run.train:
        Config.load(given)
    elif options.command is trained.show_evaluation:
        Config.load(parse_assignments(word for word in options.words if "=" in word))
    elif options.command is run.run_notebook:
        declared = read_parameters(find(options.notebook))
        if "settings" in declared:
            Config.load(given)
        else:
            assert set(given) <= set(declared)
    elif options.command is studies.run_sweep:
        assert (REPOSITORY / options.study).is_file()


def execute(block: Block) -> None:
    if block.language == "python":
        names = {"torch": torch}
        exec(block.mark.removeprefix("given: ") if block.mark.startswith("given: ") else "", names)
        exec(block.code, names)
        return
    for line in commands_of(block):
        assert line.startswith("research "), line
        assert cli.main(shlex.split(line)[1:]) in (0, None), line


def selected(languages: str, marked: bool) -> list[Block]:
    return [
        block
        for block in BLOCKS
        if block.language in languages.split() and not block.mark.startswith(("not run: ", "checked: "))
        if (block.mark == "slow") is marked
    ]


@pytest.mark.parametrize("block", selected("sh python", marked=False), ids=str)
def test_example_runs(block, here, capsys):
    execute(block)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_longer_examples_run_in_order(document, here, capsys):
    for block in selected("sh python", marked=True):
        if block.document == document:
            execute(block)


def test_marks_are_known_and_give_reasons():
    for block in BLOCKS:
        assert re.fullmatch(r"|slow|not run: \S.*|given: \S.*|checked: \S+", block.mark), block.mark
        if block.mark.startswith("checked: "):
            assert block.document.name in read(block.mark.removeprefix("checked: "))


def test_documented_study_and_code_are_valid(tmp_path):
    for number, block in enumerate(block for block in BLOCKS if block.language == "yaml"):
        (tmp_path / f"{number}.yaml").write_text(block.code)
        assert expand(read_study(tmp_path / f"{number}.yaml"))
    for block in BLOCKS:
        if block.language == "python":
            compile(block.code, str(block), "exec")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "console"], ids=str)
def test_refusals_are_told_as_documented(block):
    """A block that shows a command after ``$`` and the errors that it prints."""
    first, *told = block.code.strip().splitlines()
    with pytest.raises(UsageError) as error:
        Config.load(parse_assignments(shlex.split(first)[3:]))
    assert [f"error: {line}" for line in str(error.value).splitlines()] == told
