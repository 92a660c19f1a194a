"""``python -m research`` is the command ``research``."""

from research.cli import console
from research.processes import obey_parent

obey_parent()
console()
