"""Gristmill: from raw data pools to trained models, on Ray."""

__version__ = "0.1.0"
