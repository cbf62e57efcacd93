"""Which Harken this is, and where it lies."""

from pathlib import Path

__version__ = "0.1.0"
ABOUT = "Harken turns people's judgments into a language model that acts on them."
PACKAGE = Path(__file__).parents[1]
"""The folder of the package."""
