"""Logging in; users, service accounts, roles, grants and tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response, status

from snapkeep.catalog.identities import IDENTITY_ORDERS, TOKEN_ORDERS
from snapkeep.catalog.paging import Orders, Sort
from snapkeep.catalog.records import IdentityRecord, RoleRecord
from snapkeep.identity.service import require_another
from snapkeep.model.access import Action, IdentityKind
from snapkeep.model.errors import InvalidInput, NotFound
from snapkeep.operations.requester import Planned
from snapkeep.server.access import Access, Allowed, allow, for_anybody, for_anyone_known
from snapkeep.server.authentication import Caller
from snapkeep.server.conditional import Expected, Known, answered, tag_of
from snapkeep.server.context import Context, Parts
from snapkeep.server.lists import Part, Wanted, wanted
from snapkeep.server.once import Single
from snapkeep.server.requester import WOULD, DryRun
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_identities import (
    GrantIn,
    GrantOut,
    IdentityChange,
    IdentityIn,
    IdentityName,
    IdentityOut,
    LoginIn,
    MeOut,
    NewTokenOut,
    PasswordIn,
    RoleIn,
    RoleOut,
    TokenIn,
    TokenOut,
)

router = APIRouter(tags=["identities"])
public = APIRouter(tags=["identities"])
"""What needs no token."""

MANAGE = [allow(Action.IDENTITY_MANAGE)]

ROLE_ORDERS = Orders[RoleRecord]("name", name=Sort((), lambda role: (role.name,)))


# -- oneself -----------------------------------------------------------------------------------------------------------
@public.post("/login", dependencies=[for_anybody()])
async def login(body: LoginIn, request: Request, parts: Parts) -> NewTokenOut:
    """Begin a session: the answer's token is valid for twelve hours."""
    request.state.action, request.state.subject = "login", body.name
    address = request.client.host if request.client else ""
    token, record = await parts.identities.login(body.name, body.password.get_secret_value(), address)
    return NewTokenOut(token=token, about=TokenOut.of(record))


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT, dependencies=[for_anyone_known()])
async def logout(principal: Caller, parts: Parts) -> None:
    """End the session: the token with which this is asked lets nobody in any more."""
    if principal.token_id is None:
        raise InvalidInput(
            "The local token is no session", next_step="Remove the file `token` while the server is stopped."
        )
    await parts.catalog.identities.remove_token(principal.token_id)


@router.get("/me", dependencies=[for_anyone_known()])
async def me(principal: Caller) -> MeOut:
    """Say who the caller is, and what he may do."""
    return MeOut.of(principal)


@router.put("/me/password", status_code=status.HTTP_204_NO_CONTENT, dependencies=[for_anyone_known()])
async def change_password(body: PasswordIn, request: Request, principal: Caller, parts: Parts) -> None:
    """Change one's own password; all sessions end."""
    if principal.kind is not IdentityKind.USER:
        raise InvalidInput(f"{principal.name!r} has no password")
    identity = await parts.catalog.identities.get(principal.name)
    address = request.client.host if request.client else ""
    await parts.identities.change_password(identity, body.old.get_secret_value(), body.new.get_secret_value(), address)


# -- identities --------------------------------------------------------------------------------------------------------
@router.get("/identities", dependencies=[allow(Action.IDENTITY_READ)], response_model=Page[IdentityOut])
async def list_identities(
    parts: Parts,
    page: Annotated[Wanted, wanted(IdentityOut, IDENTITY_ORDERS)],
    kind: Literal["user", "service"] | None = None,
    disabled: bool | None = None,
    q: Part = "",
) -> Response:
    """List users and service accounts, with what they were granted."""
    of_kind = None if kind is None else IdentityKind(kind)
    found = await parts.catalog.identities.find(kind=of_kind, disabled=disabled, part=q, paging=page.paging)
    held = await parts.catalog.identities.grants_of_all(found)
    return page.answer([IdentityOut.of(item, held[item.id]) for item in found], found)


@router.post("/identities", status_code=status.HTTP_201_CREATED, dependencies=MANAGE, response_model=IdentityOut)
async def add_identity(body: IdentityIn, parts: Parts, once: Single) -> IdentityOut | Response:
    """Add a user or a service account, who may do nothing yet."""

    async def add() -> IdentityOut:
        password = None if body.password is None else body.password.get_secret_value()
        return await _shown(await parts.identities.add(body.name, IdentityKind(body.kind), password), parts)

    return await once.answer(add)


@router.get("/identities/{name}", dependencies=[allow(Action.IDENTITY_READ)], response_model=IdentityOut)
async def show_identity(name: str, parts: Parts, known: Known) -> Response:
    """Show a user or a service account, with what he was granted."""
    identity = await parts.catalog.identities.get(name)
    shown = await _shown(identity, parts)
    return known.answer(shown, tag_of(shown, identity.password))


@router.patch("/identities/{name}", dependencies=MANAGE, response_model=IdentityOut)
async def change_identity(
    expected: Expected, name: str, body: IdentityChange, principal: Caller, parts: Parts
) -> Response:
    """Give a user another password; disable somebody, or let him in again."""
    identity = await parts.catalog.identities.get(name)
    expected.require(tag_of(await _shown(identity, parts), identity.password))
    require_another(principal, identity)
    if body.password is not None:
        await parts.identities.set_password(identity, body.password.get_secret_value())
    if body.disabled is not None:
        await parts.identities.disable(identity, disabled=body.disabled)
    identity = await parts.catalog.identities.get(name)
    shown = await _shown(identity, parts)
    return answered(shown, tag_of(shown, identity.password))


@router.delete("/identities/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=MANAGE, responses=WOULD)
async def remove_identity(
    expected: Expected, name: str, principal: Caller, parts: Parts, dry_run: DryRun = False
) -> None:
    """Remove somebody, with grants and tokens; what he did stays on record."""
    identity = await parts.catalog.identities.get(name)
    shown = await _shown(identity, parts)
    expected.require(tag_of(shown, identity.password))
    require_another(principal, identity)
    if dry_run:
        tokens = len(await parts.catalog.identities.tokens(identity.id))
        raise Planned(f"remove {name}", [name, f"{len(shown.grants)} grants", f"{tokens} tokens"])
    await parts.catalog.identities.remove(identity.id)


@router.post(
    "/identities/{name}/grants", status_code=status.HTTP_201_CREATED, dependencies=MANAGE, response_model=GrantOut
)
async def grant(name: str, body: GrantIn, principal: Caller, parts: Parts, once: Single) -> GrantOut | Response:
    """Give somebody a role within a scope."""

    async def give() -> GrantOut:
        identity = await parts.catalog.identities.get(name)
        return GrantOut.of(await parts.identities.grant(principal, identity, body.role, body.scope))

    return await once.answer(give)


@router.delete(
    "/identities/{name}/grants/{grant_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=MANAGE,
    responses=WOULD,
)
async def revoke(name: str, grant_id: str, principal: Caller, parts: Parts, dry_run: DryRun = False) -> None:
    """Take a role away; from now on, also for those who are in."""
    identity = await parts.catalog.identities.get(name)
    require_another(principal, identity)
    held = {item.id: item for item in await parts.catalog.identities.grants_of(identity)}
    if dry_run and grant_id in held:
        raise Planned(f"revoke {held[grant_id].role} from {name}", [name])
    await parts.catalog.identities.revoke(identity, grant_id)


async def _shown(identity: IdentityRecord, parts: Context) -> IdentityOut:
    return IdentityOut.of(identity, await parts.catalog.identities.grants_of(identity))


# -- tokens ------------------------------------------------------------------------------------------------------------
@router.get("/tokens", dependencies=[for_anyone_known()], response_model=Page[TokenOut])
async def list_tokens(
    access: Allowed,
    parts: Parts,
    page: Annotated[Wanted, wanted(TokenOut, TOKEN_ORDERS)],
    everybody: Annotated[bool, Query(description="Those of all identities; needs identity.read.")] = False,
    identity: Annotated[str | None, Query(max_length=63, description="Only those of this identity.")] = None,
    kind: Literal["api", "session"] | None = None,
) -> Response:
    """List one's own tokens and sessions, or those of everybody."""
    mine = None
    if everybody or access.principal.kind is IdentityKind.LOCAL:
        await access.require(Action.IDENTITY_READ)
    else:
        mine = (await parts.catalog.identities.get(access.principal.name)).id
    found = await parts.catalog.identities.tokens(mine, identity=identity, kind=kind, paging=page.paging)
    return page.answer([TokenOut.of(item) for item in found], found)


@router.post(
    "/tokens", status_code=status.HTTP_201_CREATED, dependencies=[for_anyone_known()], response_model=NewTokenOut
)
async def make_token(body: TokenIn, access: Allowed, parts: Parts, once: Single) -> NewTokenOut | Response:
    """Make a token for oneself, or for a service account (needs identity.manage). It is shown this once."""
    return await once.answer(lambda: _made(body, access, parts), secret=True)


async def _made(body: TokenIn, access: Access, parts: Context) -> NewTokenOut:
    name = body.identity or access.principal.name
    if name != access.principal.name:
        await access.require(Action.IDENTITY_MANAGE)
    elif access.principal.kind is IdentityKind.LOCAL:
        raise InvalidInput(
            "Who has the local token has no identity of which another token could be",
            next_step="Add a user or service account first, and make the token for it.",
        )
    identity = await parts.catalog.identities.get(name)
    limits = None if body.limits is None else [(item.role, item.scope) for item in body.limits]
    expires_at = parts.clock.now() + timedelta(days=body.days)
    token, record = await parts.identities.make_token(access.principal, identity, body.name, limits, expires_at)
    return NewTokenOut(token=token, about=TokenOut.of(record))


@router.delete(
    "/tokens/{token_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[for_anyone_known()],
    responses=WOULD,
)
async def revoke_token(token_id: str, access: Allowed, parts: Parts, dry_run: DryRun = False) -> None:
    """Revoke a token: one's own, or that of somebody else (needs identity.manage)."""
    record = await parts.catalog.identities.token(token_id)
    if record.identity_name != access.principal.name:
        if not access.principal.may(Action.IDENTITY_MANAGE):
            raise NotFound(f"There is no token {token_id!r}", next_step="See `snapkeep token list`.")
        await access.require(Action.IDENTITY_MANAGE)
    if dry_run:
        raise Planned(f"revoke the token {record.name!r} of {record.identity_name}", [record.id])
    await parts.catalog.identities.remove_token(record.id)


# -- roles -------------------------------------------------------------------------------------------------------------
@router.get("/roles", dependencies=[for_anyone_known()], response_model=Page[RoleOut])
async def list_roles(
    parts: Parts,
    page: Annotated[Wanted, wanted(RoleOut, ROLE_ORDERS)],
    built_in: Annotated[bool | None, Query(description="Only those that are always there; false: the others.")] = None,
) -> Response:
    """List the roles: those that are always there, and one's own."""
    roles = (await parts.catalog.identities.roles()).values()
    found = ROLE_ORDERS.cut((role for role in roles if built_in in {None, role.built_in}), page.paging)
    return page.answer([RoleOut.of(role) for role in found], found)


@router.get("/roles/{name}", dependencies=[for_anyone_known()], response_model=RoleOut)
async def show_role(name: str, parts: Parts, known: Known) -> Response:
    """Show a role."""
    role = await _role(name, parts)
    if role is None:
        raise NotFound(f"There is no role {name!r:.80}", next_step="See `snapkeep role list`.")
    return known.answer(role, tag_of(role))


@router.put("/roles/{name}", dependencies=MANAGE, response_model=RoleOut)
async def put_role(expected: Expected, name: IdentityName, body: RoleIn, principal: Caller, parts: Parts) -> Response:
    """Make a role, or give it other actions."""
    expected.require(await _tag_of_role(name, parts))
    await parts.identities.put_role(principal, name, body.description, body.actions)
    role = RoleOut.of((await parts.catalog.identities.roles())[name])
    return answered(role, tag_of(role))


@router.delete("/roles/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=MANAGE, responses=WOULD)
async def remove_role(expected: Expected, name: str, parts: Parts, dry_run: DryRun = False) -> None:
    """Remove a role that nobody has."""
    expected.require(await _tag_of_role(name, parts))
    await parts.catalog.identities.remove_role(name, only_check=dry_run)
    if dry_run:
        raise Planned(f"remove the role {name}", [name])


async def _role(name: str, parts: Context) -> RoleOut | None:
    found = (await parts.catalog.identities.roles()).get(name)
    return None if found is None else RoleOut.of(found)


async def _tag_of_role(name: str, parts: Context) -> str | None:
    role = await _role(name, parts)
    return None if role is None else tag_of(role)
