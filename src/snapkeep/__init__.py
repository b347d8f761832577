"""Snapkeep: protect data with the snapshots that storage already has."""

__version__ = "0.1.0"
