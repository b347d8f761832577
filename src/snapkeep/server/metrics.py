"""Metrics in Prometheus' text form: what this process counted, and figures of the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.statistics import Figures
from snapkeep.model.errors import Conflict
from snapkeep.operations.metrics import REGISTRY
from snapkeep.policy.watching import Watcher
from snapkeep.server.health import Shared

KEPT_SECONDS = 10.0
"""How long figures of the catalog are shown again, however often somebody asks."""

WAIT_SECONDS = 5.0
"""How long a scrape waits for them; Prometheus itself gives up after 10 seconds."""

log = structlog.get_logger(__name__)


class CatalogMetrics:
    """The figures of the catalog as metrics, and what its watcher saw of what is covered."""

    def __init__(self, catalog: Catalog, watcher: Watcher) -> None:
        self._watcher = watcher
        self._figures = Shared(catalog.statistics.figures, wait=WAIT_SECONDS, keep=KEPT_SECONDS)

    async def text(self) -> bytes:
        """Return the metrics; without a database, only that it does not answer."""
        try:
            families = [_gauge("catalog_up", "Whether the catalog's database answers.", 1)]
            families += _families(await self._figures.answer())
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be shown: above all, catalog_up
            log.warning("the catalog gives no figures", reason=f"{type(error).__name__}: {error}")
            families = [_gauge("catalog_up", "Whether the catalog's database answers.", 0)]
        registry = CollectorRegistry()
        registry.register(_Given([*families, *_coverage(self._watcher)]))
        return generate_latest(registry)


class _Given(Collector):
    """Metrics that are known already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(figures: Figures) -> list[Metric]:
    operations = GaugeMetricFamily("snapkeep_operations", "Operations that have not ended.", labels=("state", "queue"))
    for key, number in figures.open_operations.items():
        operations.add_metric(key, number)
    heartbeats = GaugeMetricFamily(
        "snapkeep_worker_heartbeat_age_seconds", "Since the last sign of life of a worker.", labels=("worker",)
    )
    for name, age in figures.heartbeat_ages.items():
        heartbeats.add_metric((name,), age)
    rows = GaugeMetricFamily("snapkeep_catalog_rows", "Rows of the catalog.", labels=("table",))
    for table, number in figures.rows.items():
        rows.add_metric((table,), number)
    return [
        operations,
        heartbeats,
        rows,
        _gauge("catalog_bytes", "Size of the catalog in its database.", figures.bytes),
        _gauge("exports_in_force", "Exports by which a backup host may read.", figures.exports_in_force),
        _gauge("oldest_queued_seconds", "Age of the operation that waits longest.", figures.oldest_queued_seconds),
    ]


def _coverage(watcher: Watcher) -> list[Metric]:
    """Return what was seen last of what is covered: nothing is asked for a scrape. Empty: nothing was seen yet."""
    seen, age = watcher.seen, watcher.age
    if seen is None or age is None:
        return []
    assets = GaugeMetricFamily("snapkeep_coverage_assets", "Assets by how they are covered.", labels=("state",))
    for state, number in seen.counts.items():
        assets.add_metric((state.value,), number)
    return [
        assets,
        _gauge(
            "coverage_rpo_used_ratio",
            "Greatest age of a last good recovery point, as a multiple of what its policies promise.",
            seen.most_of_rpo,
        ),
        _gauge("coverage_look_age_seconds", "Since it was looked what is covered.", age),
    ]


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"snapkeep_{name}", help_text, value=value)


router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return what this process counted, and the figures of the catalog."""
    catalog: CatalogMetrics = request.app.state.context.catalog_metrics
    return Response(generate_latest(REGISTRY) + await catalog.text(), media_type=CONTENT_TYPE_LATEST)


@contextmanager
def serve_metrics(port: int) -> Iterator[int]:
    """Serve what this process counts on loopback, for a worker that has no API; yield the port. Raises Conflict.

    There is no token: it shows numbers only, and only to this machine.
    """
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=REGISTRY)
    except OSError as error:
        raise Conflict(
            f"Cannot serve metrics on 127.0.0.1:{port}: {error.strerror}",
            next_step="Stop what uses this port, or choose another one with --metrics-port.",
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
