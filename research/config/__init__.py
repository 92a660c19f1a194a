"""What defines a run: its parameters, published recipes, and the command lines of the systems it grew from."""

from research.config.config import Config

__all__ = ["Config"]
