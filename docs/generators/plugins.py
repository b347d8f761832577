"""What each plug-in can do, and how that was proved."""

from __future__ import annotations

from generators.markdown import member_docs, page, table
from snapkeep.model.assets import Capability
from snapkeep.plugin.plugin import Plugin, Proof
from snapkeep.plugin.registry import get_plugin, plugin_names


def plugins_page() -> str:
    """What each plug-in can do, and how that was proved."""
    plugins = [get_plugin(name) for name in plugin_names()]
    meanings = member_docs(Capability)
    matrix = [
        [
            f"`{capability}`",
            meanings[capability],
            *("yes" if capability in plugin.all_capabilities() else "no" for plugin in plugins),
        ]
        for capability in Capability
    ]
    proofs = member_docs(Proof)
    return page(
        "Plug-ins",
        "This page comes from what the plug-ins declare. `snapkeep plugin show NAME` prints the same.",
        table(
            ("Plug-in", "System", "Proved by"),
            [[f"`{plugin.name}`", plugin.title, f"`{plugin.proof}`"] for plugin in plugins],
        ),
        "## Capabilities",
        table(("Capability", "Meaning", *(f"`{plugin.name}`" for plugin in plugins)), matrix),
        "A single asset may have less than its plug-in offers; `snapkeep asset show` says what, and why.",
        "## How a plug-in is proved",
        "Each step includes those before it.",
        table(("Proof", "Meaning"), [[f"`{proof}`", proofs[proof]] for proof in Proof]),
        *(plugin_permissions(plugin) for plugin in plugins),
    )


def plugin_permissions(plugin: Plugin) -> str:
    """Return what one plug-in offers for each kind of asset, and the rights that it needs."""
    kinds = [
        [f"`{kind}`", ", ".join(f"`{each}`" for each in sorted(found))] for kind, found in plugin.capabilities.items()
    ]
    rights = [
        [f"`{capability}`", ", ".join(f"`{right}`" for right in plugin.permissions.get(capability, ()))]
        for capability in Capability
        if capability in plugin.all_capabilities()
    ]
    return "\n\n".join(
        [
            f"## {plugin.name}",
            table(("Kind of asset", "Capabilities"), kinds),
            "Rights that the account needs on the system:",
            table(("Capability", "Rights"), rights),
        ]
    )
