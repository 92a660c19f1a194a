"""A workbench for studying how convolutional networks learn."""

from importlib import import_module
from importlib.metadata import version

_HOMES = {  # name -> the module that has it, or (None) is it
    "Config": "research.config",
    "launch": "research.launcher.launch",
    "load_runs": "research.frames",
    "create_model": "research.models",
    "figures": None,
    "logbook": "research.log",
}


def __dir__() -> list[str]:
    return ["__version__", *_HOMES]


def __getattr__(name: str):
    """Import on first use, so that ``research --help`` does not wait for torch."""
    if name == "__version__":
        return version("research")
    if name not in _HOMES:
        raise AttributeError(f"module 'research' has no attribute {name!r}")
    if (home := _HOMES[name]) is None:
        return import_module(f"research.{name}")
    value = getattr(import_module(home), name, None) or import_module(f"{home}.{name}")
    globals()[name] = value
    return value
