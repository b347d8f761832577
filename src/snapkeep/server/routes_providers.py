"""Identity providers, and logging in with them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response, status

from snapkeep.catalog.providers import PROVIDER_ORDERS
from snapkeep.model.access import Action
from snapkeep.operations.requester import Planned
from snapkeep.server.access import allow, for_anybody
from snapkeep.server.authentication import Caller, address_of
from snapkeep.server.conditional import Expected, Known, answered, tag_of
from snapkeep.server.context import Parts
from snapkeep.server.lists import Part, Wanted, wanted
from snapkeep.server.once import Single
from snapkeep.server.requester import WOULD, DryRun
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_identities import NewTokenOut
from snapkeep.server.schemas_providers import (
    BrowserAnswerIn,
    BrowserLoginIn,
    BrowserLoginOut,
    DeviceAnswerOut,
    DeviceLoginIn,
    DeviceLoginOut,
    DeviceTicketIn,
    ProviderChange,
    ProviderIn,
    ProviderOut,
    session_of,
    settings_of,
)

router = APIRouter(tags=["identities"])
public = APIRouter(tags=["identities"])
"""What needs no token."""

MANAGE = [allow(Action.IDENTITY_MANAGE)]
READ = [allow(Action.IDENTITY_READ)]


# -- providers ---------------------------------------------------------------------------------------------------------
@router.get("/providers", dependencies=READ, response_model=Page[ProviderOut])
async def list_providers(
    parts: Parts, page: Annotated[Wanted, wanted(ProviderOut, PROVIDER_ORDERS)], q: Part = ""
) -> Response:
    """List the identity providers by whose word people log in."""
    found = await parts.catalog.providers.find(part=q, paging=page.paging)
    return page.answer([ProviderOut.of(item) for item in found], found)


@router.post("/providers", status_code=status.HTTP_201_CREATED, dependencies=MANAGE, response_model=ProviderOut)
async def add_provider(body: ProviderIn, parts: Parts, once: Single) -> ProviderOut | Response:
    """Add an identity provider (OpenID Connect). It has to answer now."""
    secret = None if body.client_secret is None else body.client_secret.get_secret_value()

    async def add() -> ProviderOut:
        return ProviderOut.of(await parts.providers.add(body.name, body.issuer, secret, settings_of(body)))

    return await once.answer(add)


@router.get("/providers/{name}", dependencies=READ, response_model=ProviderOut)
async def show_provider(name: str, parts: Parts, known: Known) -> Response:
    """Show an identity provider."""
    shown = ProviderOut.of(await parts.catalog.providers.get(name))
    return known.answer(shown, tag_of(shown))


@router.patch("/providers/{name}", dependencies=MANAGE, response_model=ProviderOut)
async def change_provider(
    expected: Expected, name: str, body: ProviderChange, principal: Caller, parts: Parts
) -> Response:
    """Change an identity provider. What its groups give changes for each at his next login."""
    provider = await parts.catalog.providers.get(name)
    expected.require(tag_of(ProviderOut.of(provider)))
    secret: tuple[()] | tuple[str | None] = ()
    if "client_secret" in body.model_fields_set:
        secret = (None if body.client_secret is None else body.client_secret.get_secret_value(),)
    shown = ProviderOut.of(await parts.providers.change(principal, provider, secret, settings_of(body)))
    return answered(shown, tag_of(shown))


@router.delete("/providers/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=MANAGE, responses=WOULD)
async def remove_provider(
    expected: Expected, name: str, principal: Caller, parts: Parts, dry_run: DryRun = False
) -> None:
    """Remove an identity provider: sessions of those whom it knows end, and what its groups gave is taken back."""
    provider = await parts.catalog.providers.get(name)
    expected.require(tag_of(ProviderOut.of(provider)))
    await parts.providers.require_another(principal, provider)
    if dry_run:
        raise Planned(f"remove the identity provider {name}", [name])
    await parts.catalog.providers.remove(provider)


# -- logins ------------------------------------------------------------------------------------------------------------
@public.post("/login/browser", dependencies=[for_anybody()])
async def begin_in_browser(body: BrowserLoginIn, request: Request, parts: Parts) -> BrowserLoginOut:
    """Begin a login with an identity provider, in a browser of this machine."""
    _about(request, body.provider)
    login = await parts.single_sign_on.begin_browser(body.provider, body.redirect_uri, address_of(request))
    request.state.unfinished = True
    return BrowserLoginOut.of(login)


@public.post("/login/browser/session", dependencies=[for_anybody()])
async def end_in_browser(body: BrowserAnswerIn, request: Request, parts: Parts) -> NewTokenOut:
    """End a login with what the browser has brought back. Once: whatever is answered, it is over."""
    _about(request, None)
    given = body.model_dump(exclude={"ticket"})
    session = session_of(await parts.single_sign_on.end_browser(body.ticket, given, address_of(request)))
    request.state.subject = session.about.identity
    return session


@public.post("/login/device", dependencies=[for_anybody()])
async def begin_on_device(body: DeviceLoginIn, request: Request, parts: Parts) -> DeviceLoginOut:
    """Begin a login with an identity provider, to which somebody agrees on another device (RFC 8628)."""
    _about(request, body.provider)
    login = await parts.single_sign_on.begin_device(body.provider, address_of(request))
    request.state.unfinished = True
    return DeviceLoginOut.of(login)


@public.post("/login/device/session", dependencies=[for_anybody()])
async def end_on_device(body: DeviceTicketIn, request: Request, parts: Parts) -> DeviceAnswerOut:
    """End a login, if somebody has agreed to it."""
    _about(request, None)
    found = await parts.single_sign_on.end_device(body.ticket, address_of(request))
    if isinstance(found, int):
        request.state.unfinished = True
        return DeviceAnswerOut(session=None, seconds=found)
    session = session_of(found)
    request.state.subject = session.about.identity
    return DeviceAnswerOut(session=session, seconds=None)


def _about(request: Request, provider: str | None) -> None:
    """Leave for the audit log what this is; who it is about is known only at the end."""
    request.state.action, request.state.subject = "login", f"provider {provider}" if provider else "provider"
