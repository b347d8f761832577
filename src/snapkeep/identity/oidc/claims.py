"""Claims: who somebody is to a provider, what he is called here, and what his groups give him."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from snapkeep.catalog.records import ProviderRecord
from snapkeep.identity.names import NAME, RESERVED
from snapkeep.identity.oidc.transport import Json, printable
from snapkeep.model.errors import AuthenticationFailed, PermissionDenied

LONGEST_SUBJECT = 255
MOST_GROUPS = 10_000


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, as a provider describes him; `groups` is None when it does not say in which he is."""

    subject: str
    name: object
    groups: frozenset[str] | None


def subject_of(claims: Json) -> str:
    """Return by what a provider knows somebody. Raises AuthenticationFailed."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        raise AuthenticationFailed(
            "The identity provider does not say who you are in a way that can be used (sub)",
            next_step=f"It has to be a text of 1 to {LONGEST_SUBJECT} printable characters.",
        )
    return subject


def person_of(claims: Json, provider: ProviderRecord) -> Person:
    """Return whom the claims describe. Raises AuthenticationFailed."""
    return Person(subject_of(claims), claims.get(provider.name_claim), _groups(claims, provider))


def name_of(person: Person, provider: ProviderRecord) -> str:
    """Return what somebody new is called here. Raises AuthenticationFailed for what is no name here."""
    given = person.name
    if isinstance(given, str) and given.isascii() and len(given) <= 63:
        name = given.lower()
        if NAME.fullmatch(name) and name not in RESERVED:
            return name
    shown = printable(given) if isinstance(given, str) else "nothing"
    raise AuthenticationFailed(
        f"What {provider.name} calls you in its claim {provider.name_claim!r} is no name here: {shown!r:.80}",
        next_step="A name has letters, digits, '.', '_', '-' and '@', at most 63 characters, and is not that of the "
        "installation itself. Let an administrator choose another claim: "
        f"`snapkeep provider change {provider.name} --name-claim CLAIM`.",
    )


def require_allowed(person: Person, provider: ProviderRecord) -> None:
    """Raise PermissionDenied for who is in no group that may log in."""
    if provider.allowed_groups and not (person.groups or frozenset()) & set(provider.allowed_groups):
        missing = f": its token has no claim {provider.groups_claim!r}" if person.groups is None else ""
        raise PermissionDenied(
            f"{provider.name} says of you no group that may log in here{missing}",
            next_step="Ask who manages your groups to put you in one; an administrator sees them with `snapkeep "
            f"provider show {provider.name}`.",
        )


def wanted_grants(person: Person, provider: ProviderRecord, roles: Container[str]) -> set[tuple[str, str]]:
    """Return the roles within scopes that somebody's groups give him; a role that is no more gives nothing."""
    groups = person.groups or frozenset()
    return {(item.role, item.scope) for item in provider.grants if item.group in groups and item.role in roles}


def _groups(claims: Json, provider: ProviderRecord) -> frozenset[str] | None:
    name = provider.groups_claim
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, dict) and name in elsewhere:
        raise _unusable(provider, "are too many for its token, which names another place for them")
    found = claims.get(name)
    if found is None:
        return None
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list) or len(found) > MOST_GROUPS or not all(isinstance(item, str) for item in found):
        raise _unusable(provider, "are no list of names")
    return frozenset(found)


def _unusable(provider: ProviderRecord, reason: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"Your groups at {provider.name} (claim {provider.groups_claim!r}) {reason}",
        next_step="Have the provider write the names of the groups that matter into this claim, or choose another one: "
        f"`snapkeep provider change {provider.name} --groups-claim CLAIM`.",
    )
