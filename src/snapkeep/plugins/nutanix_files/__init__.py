"""Nutanix Files, the API v4.0 of Prism Central."""

from snapkeep.plugins.nutanix_files.plugin import PLUGIN

__all__ = ["PLUGIN"]
