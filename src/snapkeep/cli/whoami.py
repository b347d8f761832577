"""`snapkeep whoami`: who one is, and what one may do where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.scopes import Scopes
from snapkeep.model.access import EVERYWHERE, Action, Grant, IdentityKind, Principal, Scope, ScopeKind

Json = dict[str, Any]
_ASSETS = frozenset({ScopeKind.SYSTEM, ScopeKind.ASSET, ScopeKind.LABEL})
_ONLY_ALL: frozenset[ScopeKind] = frozenset()
KINDS: dict[str, frozenset[ScopeKind]] = {
    "system": frozenset({ScopeKind.SYSTEM, ScopeKind.LABEL}),
    "asset": _ASSETS,
    "snapshot": _ASSETS,
    "export": _ASSETS,
    "change-list": _ASSETS,
    "backup": _ASSETS | {ScopeKind.REPOSITORY},
    "signal": _ASSETS | {ScopeKind.REPOSITORY},
    "protection": _ASSETS | {ScopeKind.REPOSITORY},
    "hold": _ASSETS | {ScopeKind.REPOSITORY},
    "lock": _ASSETS | {ScopeKind.REPOSITORY},
    "repository": frozenset({ScopeKind.REPOSITORY}),
    "audit": _ONLY_ALL,
    "identity": _ONLY_ALL,
    "approval": _ONLY_ALL,
    "four-eyes": _ONLY_ALL,
    "cooling": _ONLY_ALL,
    "key": _ONLY_ALL,
    "notification": _ONLY_ALL,
    "policy": _ONLY_ALL,
    "program": _ONLY_ALL,
    "report": _ASSETS | {ScopeKind.REPOSITORY},
    Action.REPORT_SCHEDULE: _ONLY_ALL,
    Action.SYSTEM_ADD: _ONLY_ALL,
    Action.REPOSITORY_ADD: _ONLY_ALL,
}
"""Which scopes, besides `all`, can hold the subjects of an action, or of all actions on this; left out: each."""


def whoami(*, common: Common = DEFAULT) -> None:
    """Show who you are to the server, what was granted to you, and what you may do where."""
    from snapkeep.cli import output

    rest = common.connect()
    me = rest.request("GET", "/me")
    if common.json:
        output.print_json(me)
        return
    scopes = Scopes(rest)
    output.console.print(f"{me['name']} ({me['kind']}) at {rest.url}", markup=False, soft_wrap=True)
    columns = [("role", "ROLE"), ("scope", "SCOPE")]
    for title, held in (("Granted:", me["grants"]), ("This token is narrowed to:", me["limits"])):
        if held is not None:
            output.console.print(f"\n{title}")
            rows = [{**grant, "scope": scopes.shown(grant["scope"])} for grant in held]
            output.show(common, rows, columns, empty="Nothing. Ask a security officer for a role.")
    rows = list(_rows(me, scopes))
    if rows:
        output.console.print("\nAllowed:")
        output.show(common, rows, [("on", "ON"), ("may", "MAY"), ("where", "WHERE")], empty="")


def _rows(me: Json, scopes: Scopes) -> Iterable[Json]:
    """Yield what is allowed: one row for all that is allowed on the same, in the same places."""
    principal = Principal(
        me["name"],
        IdentityKind(me["kind"]),
        _grants(me["grants"]),
        None if me["limits"] is None else _grants(me["limits"]),
    )
    found: dict[tuple[str, str], list[str]] = {}
    for action in Action:
        if places := _places(action, principal):
            noun, _, verb = action.partition(".")
            where = ", ".join(" and ".join(scopes.shown(str(scope)) for scope in place) for place in places)
            found.setdefault((noun, where), []).append(verb)
    for (noun, where), verbs in found.items():
        yield {"on": noun, "may": verbs, "where": where}


def _grants(held: list[Json]) -> tuple[Grant, ...]:
    return tuple(Grant(item["role"], frozenset(item["actions"]), Scope.parse(item["scope"])) for item in held)


def _places(action: Action, principal: Principal) -> list[tuple[Scope, ...]]:
    """Return where an action is allowed: in all that lies in each scope of one of these."""
    kinds = KINDS.get(action, KINDS.get(action.partition(".")[0], frozenset(ScopeKind)))
    found: dict[tuple[Scope, ...], None] = {}
    for scopes in principal.visible(action):
        place = tuple(dict.fromkeys(scope for scope in scopes if scope != EVERYWHERE))
        if not place:
            return [(EVERYWHERE,)]
        if all(scope.kind in kinds for scope in place) and not _exclude_each_other(place):
            found[place] = None
    return list(found)


def _exclude_each_other(place: Iterable[Scope]) -> bool:
    kinds = [scope.kind for scope in place if scope.kind is not ScopeKind.LABEL]
    return len(kinds) != len(set(kinds))
