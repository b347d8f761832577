"""The roles that are always there, the actions that they have, and the scopes that can hold these."""

from __future__ import annotations

from generators.markdown import member_docs, page, table
from snapkeep.cli.whoami import KINDS
from snapkeep.model.access import ROLES, Action, ScopeKind


def roles_page() -> str:
    """The roles that are always there, the actions that they have, and the scopes that can hold these."""
    meanings = member_docs(Action)
    matrix = [
        [
            f"`{action}`",
            *("yes" if action in actions else "" for _, actions in ROLES.values()),
            meanings.get(action, ""),
        ]
        for action in Action
    ]
    nouns = dict.fromkeys(action.partition(".")[0] for action in Action)
    places = [
        [f"`{on}`", *("yes" if kind is ScopeKind.ALL or kind in KINDS.get(on, ScopeKind) else "" for kind in ScopeKind)]
        for on in (*nouns, *(key for key in KINDS if "." in key))
    ]
    return page(
        "Roles and actions",
        "A *role* is a set of actions. A *grant* gives somebody a role within a *scope*. How to use them: "
        "[Users and roles](../how-to/users-and-roles.md). `snapkeep role list` and `snapkeep role actions` show the "
        "same, with roles of your own.",
        "## Roles",
        table(("Role", "What for"), [[f"`{name}`", text] for name, (text, _) in ROLES.items()]),
        "## Actions",
        "Which of them a route of REST needs stands in its [reference](rest.md).",
        table(("Action", *(f"`{name}`" for name in ROLES), "Meaning"), matrix),
        "## Scopes",
        "An action counts where a scope of the grant holds what it is done to. What is done to the whole installation, "
        "only `all` holds. An action that is named in full is an exception from its kind.",
        table(("Actions on", *(f"`{kind}`" for kind in ScopeKind)), places),
    )
