"""Plug-ins and systems."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from snapkeep.catalog.paging import Orders, Sort
from snapkeep.catalog.records import SystemRecord
from snapkeep.catalog.systems import SYSTEM_ORDERS
from snapkeep.model.access import Action, Visible
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Busy, SnapkeepError
from snapkeep.model.work import Finding, Outcome
from snapkeep.operations.requester import Planned
from snapkeep.plugin.plugin import Plugin
from snapkeep.plugin.registry import get_plugin, plugin_names
from snapkeep.server.access import allow, listed, on_system
from snapkeep.server.conditional import Expected, Known, answered, tag_of
from snapkeep.server.context import Context, Parts
from snapkeep.server.lists import Labels, Name, Part, Wanted, wanted
from snapkeep.server.once import Single
from snapkeep.server.requester import WOULD, Asker, Cautious, DryRun
from snapkeep.server.schemas import LabelsIn, LabelsOut, Page
from snapkeep.server.schemas_operations import OperationOut
from snapkeep.server.schemas_permissions import GrantOut
from snapkeep.server.schemas_systems import FindingOut, PluginOut, ReconcileIn, SystemChange, SystemIn, SystemOut

router = APIRouter(tags=["systems"])

PLUGIN_ORDERS = Orders[Plugin]("name", name=Sort((), lambda plugin: (plugin.name,)))


@router.get("/plugins", dependencies=[listed(Action.PLUGIN_READ)], response_model=Page[PluginOut])
async def list_plugins(page: Annotated[Wanted, wanted(PluginOut, PLUGIN_ORDERS)]) -> Response:
    """List the installed plug-ins with their settings and capabilities."""
    found = PLUGIN_ORDERS.cut(map(get_plugin, plugin_names()), page.paging)
    return page.answer([PluginOut.of(item) for item in found], found)


@router.get("/plugins/{name}", dependencies=[listed(Action.PLUGIN_READ)])
async def show_plugin(name: str) -> PluginOut:
    """Show one plug-in."""
    return PluginOut.of(get_plugin(name))


@router.get("/plugins/{name}/permissions", dependencies=[listed(Action.PLUGIN_READ)])
async def show_permissions(
    name: str,
    operation: Annotated[
        list[Capability] | None,
        Query(
            max_length=len(Capability), description="Only what this operation needs; of several, each. Default: all."
        ),
    ] = None,
) -> GrantOut:
    """Show what an account needs on such a system, as its administrator grants it, and no more."""
    return GrantOut.of(name, get_plugin(name).grant(operation or None))


@router.get("/systems", response_model=Page[SystemOut])
async def list_systems(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.SYSTEM_READ)],
    page: Annotated[Wanted, wanted(SystemOut, SYSTEM_ORDERS)],
    plugin: Name = None,
    q: Part = "",
    label: Labels = None,
) -> Response:
    """List the configured systems."""
    found = await parts.catalog.systems.find(visible, plugin=plugin, part=q, labelled=label or (), paging=page.paging)
    labels = await parts.catalog.identities.labels_of(record.id for record in found)
    return page.answer([SystemOut.of(record, labels[record.id]) for record in found], found)


@router.post(
    "/systems", status_code=status.HTTP_201_CREATED, dependencies=[allow(Action.SYSTEM_ADD)], response_model=SystemOut
)
async def add_system(body: SystemIn, parts: Parts, once: Single) -> SystemOut | Response:
    """Add a system. Nothing is sent to it; `check` says whether it can be used."""

    async def add() -> SystemOut:
        plain, secrets = get_plugin(body.plugin).settings.parse(body.settings).dump()
        record = await parts.catalog.systems.add(
            parts.clock.new_id(), body.name, body.plugin, plain, secrets, body.queue, parts.clock.now()
        )
        return SystemOut.of(record, {})

    return await once.answer(add)


@router.get("/systems/{name}", response_model=SystemOut)
async def show_system(
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_READ)], parts: Parts, known: Known
) -> Response:
    """Show one system."""
    shown = await _shown(record, parts)
    return known.answer(shown, tag_of(shown, record.revision))


@router.patch("/systems/{name}", response_model=SystemOut)
async def change_system(
    expected: Expected,
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_CHANGE)],
    body: SystemChange,
    parts: Parts,
) -> Response:
    """Change settings or secrets of a system. Operations under way go on with the old ones."""
    expected.require(tag_of(await _shown(record, parts), record.revision))
    name = record.name
    merged = {**await parts.catalog.systems.all_settings(record), **body.settings}
    wanted = {key: value for key, value in merged.items() if value is not None}
    settings = get_plugin(record.plugin).settings
    old, new = settings.parse(await parts.catalog.systems.all_settings(record)), settings.parse(wanted)
    changed = {key for key in settings.identity | settings.access if getattr(old, key) != getattr(new, key)}
    left = await parts.catalog.systems.dependents(record.id)
    if not changed & settings.identity:
        left["snapshots made by Snapkeep"] = left["holds and locks"] = 0
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
    shown = await _shown(stored, parts)
    return answered(shown, tag_of(shown, stored.revision))


@router.get("/systems/{name}/labels", response_model=LabelsOut)
async def show_system_labels(
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_READ)], parts: Parts, known: Known
) -> Response:
    """Show the labels of a system."""
    labels = await labels_of(record.id, parts)
    return known.answer(labels, tag_of(labels))


@router.put("/systems/{name}/labels", response_model=SystemOut)
async def label_system(
    expected: Expected,
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_CHANGE)],
    body: LabelsIn,
    parts: Parts,
) -> Response:
    """Give a system these labels, and no others; its assets are picked by them, too. The ETag is that of the labels."""
    expected.require(tag_of(await labels_of(record.id, parts)))
    await parts.identities.set_labels(record.id, body.labels)
    return answered(await _shown(record, parts), tag_of(await labels_of(record.id, parts)))


async def labels_of(subject_id: str, parts: Context) -> LabelsOut:
    """Return the labels of a system or an asset."""
    return LabelsOut(labels=(await parts.catalog.identities.labels_of([subject_id]))[subject_id])


async def _shown(record: SystemRecord, parts: Context) -> SystemOut:
    return SystemOut.of(record, (await parts.catalog.identities.labels_of([record.id]))[record.id])


@router.delete("/systems/{name}", status_code=status.HTTP_204_NO_CONTENT, responses=WOULD)
async def remove_system(
    expected: Expected,
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_REMOVE)],
    parts: Parts,
    dry_run: DryRun = False,
    force: bool = Query(default=False, description="Forget it although snapshots or exports of ours are on it."),
) -> None:
    """Forget a system. What lies on it is not touched."""
    expected.require(tag_of(await _shown(record, parts), record.revision))
    left = await parts.catalog.systems.dependents(record.id)
    if left["operations under way"] or (any(left.values()) and not force):
        raise Busy(
            f"On {record.name!r} there are still {_listed(left)}",
            next_step="Cancel operations or wait for their end; delete and deport the rest, or use --force.",
            left=left,
        )
    await parts.catalog.protections.require_none_of(system_id=record.id)
    if dry_run:
        counts = await parts.catalog.inventory.counts(record.id)
        affected = [f"{count} {what}" for what, count in {**counts, **left}.items() if count]
        raise Planned(f"forget the system {record.name}", [record.name, *affected])
    parts.connections.retire(record.id)
    await parts.catalog.systems.remove(record.id)


@router.post("/systems/{name}/check")
async def check_system(
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_CHECK)], parts: Parts
) -> Page[FindingOut]:
    """Say whether the system can be used, and what is missing. Changes nothing."""
    try:
        await parts.connections.renew(record.id)
        roles = await parts.connections.roles(record.id)
        findings = [finding async for finding in roles.check.check()]
    except SnapkeepError as error:
        failed = Finding(check="connection", outcome=Outcome.FAILED, message=str(error), next_step=error.next_step)
        findings = [failed]
    return Page(data=[FindingOut.of(finding) for finding in findings])


@router.post("/systems/{name}/discover", status_code=status.HTTP_202_ACCEPTED)
async def discover(
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_DISCOVER)], parts: Parts, caller: Asker
) -> OperationOut:
    """Find the assets and snapshots of a system."""
    return OperationOut.of(await parts.operations.discover(record, caller))


@router.post("/systems/{name}/reconcile", status_code=status.HTTP_202_ACCEPTED, responses=WOULD)
async def reconcile(
    record: Annotated[SystemRecord, on_system(Action.SYSTEM_RECONCILE)],
    body: ReconcileIn,
    parts: Parts,
    caller: Cautious,
) -> OperationOut:
    """Compare the catalog with what the system says, about snapshots and exports of ours."""
    return OperationOut.of(await parts.operations.reconcile(record, caller, apply=body.apply))


def _listed(left: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in left.items() if count)
