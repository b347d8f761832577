"""The registry: plug-ins are found by entry point, so third parties add one without touching Snapkeep."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from snapkeep.model.errors import NotFound
from snapkeep.plugin.plugin import Plugin

GROUP = "snapkeep.plugins"
"""The entry-point group: `name = "package.module:PLUGIN"`."""


def plugin_names() -> list[str]:
    """Return the names of the installed plug-ins, sorted; none is imported."""
    return sorted({point.name for point in entry_points(group=GROUP)})


@cache
def get_plugin(name: str) -> Plugin:
    """Import and return a plug-in. Raises NotFound naming those that are installed."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            plugin = point.load()
            if not isinstance(plugin, Plugin) or plugin.name != name:
                raise TypeError(f"entry point {name!r} of {GROUP} must name a Plugin called {name!r}")
            return plugin
    raise NotFound(
        f"There is no plug-in {name!r}",
        next_step=f"Installed plug-ins: {', '.join(plugin_names()) or 'none'}.",
    )
