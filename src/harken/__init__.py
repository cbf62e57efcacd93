"""Harken turns people's judgments into a language model that acts on them."""

__version__ = "0.1.0"
