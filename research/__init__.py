"""A workbench for studying how convolutional networks learn."""

from importlib import import_module

_HOMES = {
    "Config": "research.config",
    "launch": "research.launch",
    "load_runs": "research.frames",
    "create_model": "research.models",
}
__all__ = [*_HOMES, "figures", "logbook"]


def __getattr__(name: str):
    """Import on first use, so that ``research --help`` does not wait for torch."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in __all__:
        value = import_module(f"research.{name}")
    else:
        raise AttributeError(f"module 'research' has no attribute {name!r}")
    globals()[name] = value  # over the submodule of the same name: `research.launch` is the function
    return value
