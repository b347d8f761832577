"""Plug-ins and systems."""

from __future__ import annotations

from fastapi import APIRouter, Query, status

from snapkeep.model.errors import Busy, SnapkeepError
from snapkeep.model.work import Finding, Outcome
from snapkeep.plugin.registry import get_plugin, plugin_names
from snapkeep.server.context import Caller, Parts
from snapkeep.server.schemas import (
    FindingOut,
    OperationOut,
    Page,
    PluginOut,
    ReconcileIn,
    SystemChange,
    SystemIn,
    SystemOut,
)

router = APIRouter(tags=["systems"])


@router.get("/plugins")
async def list_plugins() -> Page[PluginOut]:
    """List the installed plug-ins with their settings and capabilities."""
    return Page(data=[PluginOut.of(get_plugin(name)) for name in plugin_names()])


@router.get("/plugins/{name}")
async def show_plugin(name: str) -> PluginOut:
    """Show one plug-in."""
    return PluginOut.of(get_plugin(name))


@router.get("/systems")
async def list_systems(parts: Parts) -> Page[SystemOut]:
    """List the configured systems."""
    return Page(data=[SystemOut.of(record) for record in await parts.catalog.systems.find()])


@router.post("/systems", status_code=status.HTTP_201_CREATED)
async def add_system(body: SystemIn, parts: Parts) -> SystemOut:
    """Add a system. Nothing is sent to it; `check` says whether it can be used."""
    settings = get_plugin(body.plugin).settings.parse(body.settings)
    plain, secrets = settings.dump()
    record = await parts.catalog.systems.add(
        parts.clock.new_id(), body.name, body.plugin, plain, secrets, body.queue, parts.clock.now()
    )
    return SystemOut.of(record)


@router.get("/systems/{name}")
async def show_system(name: str, parts: Parts) -> SystemOut:
    """Show one system."""
    return SystemOut.of(await parts.catalog.systems.get(name))


@router.patch("/systems/{name}")
async def change_system(name: str, body: SystemChange, parts: Parts) -> SystemOut:
    """Change settings or secrets of a system. Operations under way go on with the old ones."""
    record = await parts.catalog.systems.get(name)
    merged = {**await parts.catalog.systems.all_settings(record), **body.settings}
    wanted = {key: value for key, value in merged.items() if value is not None}
    settings = get_plugin(record.plugin).settings
    old, new = settings.parse(await parts.catalog.systems.all_settings(record)), settings.parse(wanted)
    changed = {key for key in settings.identity | settings.access if getattr(old, key) != getattr(new, key)}
    left = await parts.catalog.systems.dependents(record.id)
    if not changed & settings.identity:
        left["snapshots made by Snapkeep"] = 0
    if changed and any(left.values()):
        raise Busy(
            f"{', '.join(sorted(changed))} of {name!r} cannot be changed: there are still {_listed(left)}",
            next_step="Delete and deport what is there first, or add the other one as a system of its own.",
        )
    queue = body.queue or record.queue
    if queue != record.queue and left["operations under way"]:
        raise Busy(
            f"The queue of {name!r} cannot be changed: {left['operations under way']} operations are under way in it",
            next_step="Wait for their end, or cancel them.",
        )
    plain, secrets = new.dump()
    stored = await parts.catalog.systems.change(record.id, plain, secrets, queue)
    parts.connections.retire(record.id)
    return SystemOut.of(stored)


@router.delete("/systems/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def remove_system(
    name: str,
    parts: Parts,
    force: bool = Query(default=False, description="Forget it although snapshots or exports of ours are on it."),
) -> None:
    """Forget a system. What lies on it is not touched."""
    record = await parts.catalog.systems.get(name)
    left = await parts.catalog.systems.dependents(record.id)
    if left["operations under way"] or (any(left.values()) and not force):
        raise Busy(
            f"On {name!r} there are still {_listed(left)}",
            next_step="Cancel operations or wait for their end; delete and deport the rest, or use --force.",
            left=left,
        )
    parts.connections.retire(record.id)
    await parts.catalog.systems.remove(record.id)


@router.post("/systems/{name}/check")
async def check_system(name: str, parts: Parts) -> Page[FindingOut]:
    """Say whether the system can be used, and what is missing. Changes nothing."""
    record = await parts.catalog.systems.get(name)
    try:
        roles = await parts.connections.roles(record.id)
        findings = [finding async for finding in roles.check.check()]
    except SnapkeepError as error:
        failed = Finding(check="connection", outcome=Outcome.FAILED, message=str(error), next_step=error.next_step)
        findings = [failed]
    return Page(data=[FindingOut.of(finding) for finding in findings])


@router.post("/systems/{name}/discover", status_code=status.HTTP_202_ACCEPTED)
async def discover(name: str, parts: Parts, caller: Caller) -> OperationOut:
    """Find the assets and snapshots of a system."""
    record = await parts.catalog.systems.get(name)
    return OperationOut.of(await parts.operations.discover(record, caller))


@router.post("/systems/{name}/reconcile", status_code=status.HTTP_202_ACCEPTED)
async def reconcile(name: str, body: ReconcileIn, parts: Parts, caller: Caller) -> OperationOut:
    """Compare the catalog with what the system says, about snapshots and exports of ours."""
    record = await parts.catalog.systems.get(name)
    return OperationOut.of(await parts.operations.reconcile(record, caller, apply=body.apply))


def _listed(left: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in left.items() if count)
