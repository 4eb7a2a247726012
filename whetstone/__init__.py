"""Pipelines in which a language model sharpens its own reasoning."""

__version__ = "0.1.0"
