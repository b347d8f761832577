"""Linux hosts: snapshots of their own file systems."""

from snapkeep.plugins.linux_host.plugin import PLUGIN

__all__ = ["PLUGIN"]
