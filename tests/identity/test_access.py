"""Who may do what, where: pure, by its meaning written down a second time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.model.access import (
    EVERYWHERE,
    ROLES,
    Action,
    Grant,
    IdentityKind,
    Principal,
    Scope,
    ScopeKind,
    Subject,
)
from snapkeep.model.errors import InvalidInput

names = st.sampled_from(["a", "b", "c"])
pairs = st.sampled_from(["env=prod", "env=test", "team=web"])
actions = st.sampled_from([Action.SNAPSHOT_READ, Action.SNAPSHOT_DELETE, Action.SYSTEM_ADD])
scopes = st.one_of(
    st.just(EVERYWHERE),
    st.builds(Scope, st.sampled_from([ScopeKind.SYSTEM, ScopeKind.ASSET, ScopeKind.REPOSITORY]), names),
    st.builds(Scope, st.just(ScopeKind.LABEL), pairs),
)
subjects = st.builds(
    Subject,
    st.none() | names,
    st.none() | names,
    st.none() | names,
    st.frozensets(pairs, max_size=2),
)
grants = st.builds(Grant, st.just("role"), st.frozensets(actions, max_size=3), scopes)
many = st.lists(grants, max_size=4).map(tuple)
principals = st.builds(Principal, st.just("p"), st.just(IdentityKind.USER), many, st.none() | many)


def is_in(scope: Scope, subject: Subject) -> bool:
    """What the documentation says of scopes."""
    kind, _, value = str(scope).partition(":")
    if kind == "label":
        return value in subject.labels
    of = {"system": subject.system, "asset": subject.asset, "repository": subject.repository}
    return kind == "all" or of[kind] == value


@given(principals, actions, subjects)
def test_only_what_a_grant_and_every_limit_allows(principal: Principal, action: Action, subject: Subject) -> None:
    def allowed(held: tuple[Grant, ...]) -> bool:
        return any(action in grant.actions and is_in(grant.scope, subject) for grant in held)

    expected = allowed(principal.grants) and (principal.limits is None or allowed(principal.limits))
    assert principal.may(action, subject) is expected
    seen = any(all(is_in(scope, subject) for scope in scopes) for scopes in principal.visible(action))
    assert seen is expected


@given(principals, many, actions, subjects)
def test_a_limit_never_allows_more(
    principal: Principal, limits: tuple[Grant, ...], action: Action, subject: Subject
) -> None:
    narrowed = Principal(principal.name, principal.kind, principal.grants, limits)
    whole = Principal(principal.name, principal.kind, principal.grants)
    assert whole.may(action, subject) or not narrowed.may(action, subject)


@given(scopes)
def test_a_scope_reads_back(scope: Scope) -> None:
    assert Scope.parse(str(scope)) == scope


@pytest.mark.parametrize(
    "text",
    [
        "",
        "all:x",
        "system",
        "system:",
        "planet:x",
        "label:x",
        "label:=x",
        "label:x=",
        "asset:\n",
        "label:A=b",
        "ALL",
        "system:" + "x" * 300,
    ],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Scope.parse(text)


def test_no_role_holds_the_data_and_the_people() -> None:
    """Who decides about people touches no data, and who touches data decides nothing about people."""
    people = {Action.IDENTITY_MANAGE, Action.AUDIT_READ}
    harm = {
        Action.SNAPSHOT_DELETE, Action.SNAPSHOT_RESTORE, Action.BACKUP_FORGET, Action.BACKUP_CONTENT,
        Action.BACKUP_RESTORE, Action.BACKUP_PUT_BACK, Action.SYSTEM_REMOVE, Action.REPOSITORY_REMOVE,
    }  # fmt: skip
    for name, (_, allowed) in ROLES.items():
        assert not (allowed & people and allowed & harm), name
    assert ROLES["administrator"][1] >= harm
    assert Action.IDENTITY_MANAGE in ROLES["security-officer"][1]
    for name in ("viewer", "auditor"):
        assert all(action.endswith(".read") for action in ROLES[name][1]), name
        assert Action.CHANGE_LIST_READ not in ROLES[name][1], "names of files"
