"""The identity providers themselves: added, changed and removed by who manages identities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import GroupGrant, ProviderRecord
from snapkeep.identity.oidc.discovery import Discovery
from snapkeep.identity.oidc.transport import require_https, trust_of
from snapkeep.identity.service import Identities
from snapkeep.model.access import IdentityKind, Principal, Scope
from snapkeep.model.errors import InvalidInput, PermissionDenied
from snapkeep.operations.clock import Clock

OPENID = "openid"


class ProviderSettings:
    """What is known of providers, and who may change it."""

    def __init__(self, catalog: Catalog, identities: Identities, discovery: Discovery, clock: Clock) -> None:
        self._catalog = catalog
        self._identities = identities
        self._discovery = discovery
        self._clock = clock

    async def add(self, name: str, issuer: str, secret: str | None, settings: Mapping[str, Any]) -> ProviderRecord:
        """Add a provider, which has to answer now. Raises Conflict, InvalidInput, NotFound, and as `Discovery`."""
        require_https(issuer, "The issuer")
        if "?" in issuer or "#" in issuer:
            raise InvalidInput("The issuer has a query or fragment", next_step="Give it as the provider writes it.")
        record = ProviderRecord(
            id=self._clock.new_id(), name=name, issuer=issuer, created_at=self._clock.now(), **settings
        )
        record = await self._checked(record, secret)
        await self._discovery.metadata(record)
        return await self._catalog.providers.add(record, secret)

    async def change(
        self,
        by: Principal,
        provider: ProviderRecord,
        secret: tuple[()] | tuple[str | None],
        settings: Mapping[str, Any],
    ) -> ProviderRecord:
        """Change settings, and the client secret if one is given. Raises PermissionDenied, and as `add`."""
        await self.require_another(by, provider)
        record = await self._checked(replace(provider, **settings), *secret)
        if record.ca != provider.ca:
            await self._discovery.metadata(record)
        await self._catalog.providers.change(record, *secret)
        return record

    async def require_another(self, by: Principal, provider: ProviderRecord) -> None:
        """Raise PermissionDenied for who is known by this provider: it decides what he himself may do."""
        if by.kind is not IdentityKind.USER:
            return
        if (await self._catalog.identities.get(by.name)).issuer == provider.issuer:
            raise PermissionDenied(
                "Nobody changes the identity provider by which he himself is known",
                next_step="Let another security officer do it, who logs in with a password or another provider.",
            )

    async def _checked(self, record: ProviderRecord, secret: str | None = None) -> ProviderRecord:
        trust_of(record.ca)
        if secret is not None and not secret.isprintable():
            raise InvalidInput("The client secret has characters that are not printable")
        if OPENID not in record.scopes:
            record = replace(record, scopes=(OPENID, *record.scopes))
        await self._identities.require_roles(item.role for item in record.grants)
        given = (GroupGrant(item.group, item.role, str(Scope.parse(item.scope))) for item in record.grants)
        return replace(record, grants=tuple(dict.fromkeys(given)))
