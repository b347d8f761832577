"""What a request is given: the parts of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from snapkeep.catalog.catalog import Catalog
from snapkeep.identity.approvals import Approvals
from snapkeep.identity.oidc.providers import ProviderSettings
from snapkeep.identity.oidc.service import SingleSignOn
from snapkeep.identity.service import Identities
from snapkeep.notifications.sender import Sender
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.forgetting import Forgetting
from snapkeep.operations.host import Host
from snapkeep.operations.service import Operations
from snapkeep.policy.pruning import DeletesReally, Pruner
from snapkeep.server.events import Feed
from snapkeep.server.health import Health
from snapkeep.server.metrics import CatalogMetrics
from snapkeep.server.rates import Rates


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of a running server."""

    catalog: Catalog
    operations: Operations
    connections: Connections
    clock: Clock
    host: Host
    health: Health
    catalog_metrics: CatalogMetrics
    identities: Identities
    single_sign_on: SingleSignOn
    rates: Rates
    feed: Feed
    sender: Sender
    key: bytes = field(repr=False)
    """Of the digests of requests."""

    @property
    def approvals(self) -> Approvals:
        """What one person may not do alone."""
        return Approvals(self.catalog, self.identities, self.clock)

    @property
    def forgetting(self) -> Forgetting:
        """What forgets recovery points."""
        return Forgetting(self.catalog, self.operations, self.host, self.clock)

    @property
    def pruner(self) -> Pruner:
        """What applies the plans of policies."""
        return Pruner(self.catalog, DeletesReally(self.operations, self.forgetting), self.clock)

    @property
    def providers(self) -> ProviderSettings:
        """Who else proves who somebody is."""
        return ProviderSettings(self.catalog, self.identities, self.single_sign_on.discovery, self.clock)


def get_context(request: Request) -> Context:
    """Return the parts of this server."""
    context: Context = request.app.state.context
    return context


Parts = Annotated[Context, Depends(get_context)]
