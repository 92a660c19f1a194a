"""A plugin as a file: where it is, what it holds, and the word for it in a Config. Nothing of it is executed here."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from research.errors import UsageError, closest
from research.files import write_atomic

WORD = re.compile(r"(?P<place>.+)@(?P<digest>[0-9a-f]{16})", re.S)
FROZEN = ".plugins"  # folder of the folder of runs
_known: dict[str, Source] = {}  # by word: all that this process has met, as it was then


@dataclass(frozen=True)
class Source:
    """A Python file as it was when it was read."""

    name: str  # of the file
    content: bytes
    path: Path  # where it was read; what a traceback names

    @property
    def digest(self) -> str:
        """16 hex digits that stand for the content."""
        return hashlib.blake2b(self.content, digest_size=8).hexdigest()

    @property
    def word(self) -> str:
        """What a Config calls it, wherever it was read: ``my_method.py@0123456789abcdef``."""
        return f"{self.name}@{self.digest}"


def words_for(given: Iterable[str]) -> tuple[str, ...]:
    """The words of the plugins that a user ``given`` as files, modules or words, read now.

    Raises:
        UsageError: a line for each that cannot be read; two files of one name.
    """
    found, problems = [], []
    for each in given:
        try:
            found.append(find(each))
        except UsageError as error:
            problems.append(str(error))
    names = [source.name for source in found]
    problems += [f"plugin: two files are called {name}; rename one" for name in set(names) if names.count(name) > 1]
    if problems:
        raise UsageError("\n".join(problems))
    return tuple(source.word for source in found)


def find(given: str) -> Source:
    """The plugin that ``given`` names: a word that this process knows, or a file or module, which is read.

    Raises:
        UsageError: there is no such file, it cannot be read, or it is not what its word says.
    """
    if given in _known:
        return _known[given]
    said = WORD.fullmatch(given)
    source = read(_place(said["place"] if said else given, given), given)
    if said and source.digest != said["digest"]:
        raise UsageError(
            f"plugin={given!r}: {source.path} has changed since; the folder of a run keeps its own plugins"
        )
    return source


def read(path: Path, given: str = "") -> Source:
    """The plugin in the file ``path``, which from now on is known by its word; ``given`` is how a user named it.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        source = Source(path.name, path.read_bytes(), path.resolve())
    except OSError as error:
        raise UsageError(f"plugin={given or str(path)!r}: {error.strerror}") from None
    return _known.setdefault(source.word, source)


def keep(words: Iterable[str], folder: Path) -> None:
    """Write the plugins of these ``words`` into ``folder``, each under its own name; what is there already stays."""
    for source in map(find, words):
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / source.name
        if not copy.exists() or copy.read_bytes() != source.content:
            write_atomic(copy, source.content)


def remember(words: Iterable[str], folder: Path) -> None:
    """Know the plugins of these ``words`` by their copies in ``folder``, where :func:`keep` put them.

    Raises:
        UsageError: a copy is missing or has been changed.
    """
    for word in words:
        if word not in _known and (said := WORD.fullmatch(word)):
            copy = folder / Path(said["place"]).name
            if read(copy, word).word != word:
                raise UsageError(f"{copy} is not what its run was made with, {word}: it was edited; put it back")


def frozen(words: Iterable[str], runs: Path) -> list[Path]:
    """Where below the folder of all ``runs`` the plugins of these ``words`` wait for processes that start later."""
    said = filter(None, map(WORD.fullmatch, words))
    return [runs / FROZEN / each["digest"] / Path(each["place"]).name for each in said]


def freeze(words: Iterable[str], runs: Path) -> None:
    """Write these plugins there, so that those processes load what is known now, whatever is edited meanwhile."""
    for word in words:
        (path,) = frozen([word], runs)
        keep([word], path.parent)


def _place(place: str, given: str) -> Path:
    """The file that ``place`` names: a path, or a module that can be imported or lies below this folder."""
    path = Path(place)
    if path.is_dir():
        raise UsageError(f"plugin={given!r}: is a folder; a plugin is one Python file, and several are given as a list")
    if path.is_file():
        if path.suffix != ".py":
            raise UsageError(f"plugin={given!r}: expected a Python file, NAME.py")
        return path
    if re.fullmatch(r"\w+(\.\w+)*", place) and path.suffix != ".py":
        if (below := Path(*place.split(".")).with_suffix(".py")).is_file():
            return below
        try:
            spec = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            spec = None
        if spec and spec.origin and spec.origin.endswith(".py"):
            return Path(spec.origin)
        raise UsageError(f"plugin={given!r}: there is no such file or module{_near(path.with_suffix('.py'))}")
    raise UsageError(f"plugin={given!r}: there is no such file{_near(path)}")


def _near(path: Path) -> str:
    """End of an error line: the Python file beside ``path`` whose name is closest."""
    beside = path.parent.glob("*.py") if path.parent.is_dir() else ()
    return closest(str(path), map(str, beside))
