"""What `whoami` says is what is allowed; how limits and names are written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapkeep.cli.references import part
from snapkeep.cli.scopes import parse_limit
from snapkeep.cli.whoami import KINDS, _places
from snapkeep.model.access import ROLES, Action, Grant, IdentityKind, Principal, Scope, ScopeKind, Subject
from snapkeep.model.errors import InvalidInput

# -- what whoami says is true ------------------------------------------------------------------------------------------
names = st.sampled_from(["a", "b"])
labels = st.sampled_from(["k=1", "k=2"])
scopes = st.just(Scope(ScopeKind.ALL)) | st.one_of(
    *(st.builds(Scope, st.just(kind), names) for kind in (ScopeKind.SYSTEM, ScopeKind.ASSET, ScopeKind.REPOSITORY)),
    st.builds(Scope, st.just(ScopeKind.LABEL), labels),
)
held = st.lists(
    st.builds(lambda role, scope: Grant(role, ROLES[role][1], scope), st.sampled_from(sorted(ROLES)), scopes),
    max_size=4,
).map(tuple)
label_sets = st.frozensets(labels)
ANYTHING = frozenset({"system", "asset", "repository", "labels"})
PARTS: dict[str, frozenset[str]] = {
    "system": frozenset({"system", "labels"}),
    **dict.fromkeys(("asset", "snapshot", "export", "change-list"), ANYTHING - {"repository"}),
    **dict.fromkeys(("backup", "protection", "hold", "lock", "report", "signal"), ANYTHING),
    "repository": frozenset({"repository"}),
    **dict.fromkeys(
        ("audit", "identity", "approval", "four-eyes", "cooling", "key", "notification", "policy", "program"),
        frozenset(),
    ),
    **dict.fromkeys(("system.add", "repository.add", "report.schedule"), frozenset()),
}
"""What subjects of these actions have; the subjects of others may have whatever there is."""


def parts_of(action: Action) -> frozenset[str]:
    return PARTS.get(action, PARTS.get(action.partition(".")[0], ANYTHING))


@given(held, st.none() | held, st.sampled_from(sorted(Action)), st.data())
def test_what_whoami_shows_is_what_is_allowed(
    grants: tuple[Grant, ...], limits: tuple[Grant, ...] | None, action: Action, data: st.DataObject
) -> None:
    principal = Principal("alice", IdentityKind.USER, grants, limits)
    places = _places(action, principal)
    drawn = {part: data.draw(label_sets if part == "labels" else names) for part in sorted(parts_of(action))}
    subject = Subject(**drawn)  # type: ignore[arg-type]
    assert principal.may(action, subject) == any(all(scope.holds(subject) for scope in place) for place in places)
    for place in places:  # none is shown in which there can be nothing
        picked = {scope.kind.value: scope.value for scope in place if scope.kind not in {"all", "label"}}
        pairs = frozenset(scope.value for scope in place if scope.kind is ScopeKind.LABEL)
        inside = Subject(**picked, labels=pairs)
        assert all(scope.holds(inside) for scope in place)
        assert picked.keys() | ({"labels"} if pairs else set()) <= parts_of(action)


def test_where_each_action_counts_was_thought_of() -> None:
    nouns = {action.partition(".")[0] for action in Action}
    assert nouns - KINDS.keys() == {"plugin", "operation", "worker", "metrics"}
    assert KINDS.keys() == PARTS.keys()


role_names = st.from_regex(r"[a-z0-9]([a-z0-9._@-]{0,8}[a-z0-9])?", fullmatch=True)
scope_texts = st.builds(
    "{}:{}".format, st.sampled_from(["system", "asset", "label", "repository"]), st.text(min_size=1)
) | st.just("all")


@given(role_names, scope_texts)
def test_limits_round_trip(role: str, scope: str) -> None:
    assert parse_limit(f"{role}@{scope}") == (role, scope)
    if not role.endswith("@all"):
        assert parse_limit(role) == (role, "all")


@given(st.text())
def test_a_name_is_one_part_of_a_path(name: str) -> None:
    try:
        quoted = part(name)
    except (InvalidInput, UnicodeEncodeError):
        return
    assert quoted not in {"", ".", ".."}
    assert not set(quoted) & set("/?#\\\n ")
