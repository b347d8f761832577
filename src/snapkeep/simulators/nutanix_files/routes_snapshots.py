"""Snapshots of mount targets.

Documented: paths, verbs, the model, that a user's snapshot is always ``USER_SNAPSHOT`` and that restore needs the
mount target's ETag. Assumed: the refusals, and that a listed snapshot under deletion still answers 200.
"""

from snapkeep.simulators.kit.tasks import Entity
from snapkeep.simulators.kit.web import Answer, Router
from snapkeep.simulators.nutanix_files import envelope, wire
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.guards import Handler, need_match, need_snapshots
from snapkeep.simulators.nutanix_files.model import Share, Snapshot
from snapkeep.simulators.nutanix_files.query import page_of
from snapkeep.simulators.nutanix_files.routes_shares import SHARE, share_of
from snapkeep.simulators.nutanix_files.state import new_id
from snapkeep.simulators.nutanix_files.validation import Checker, body_of
from snapkeep.simulators.nutanix_files.work import CLONE, CREATE_SNAPSHOT, DELETE_SNAPSHOT, RESTORE
from snapkeep.simulators.nutanix_files.world import Call

router: Router[Handler] = Router()
SNAPSHOTS = SHARE + "/snapshots"
SNAPSHOT = SNAPSHOTS + "/{snapshotId}"


def _named(call: Call) -> tuple[Share, Snapshot]:
    share = share_of(call)
    return share, call.state.snapshot(share, call.parameters["snapshotId"])


@router.on("GET", SNAPSHOTS, "View_Mount_Target_Snapshot")
def list_snapshots(call: Call) -> Answer:
    """``ListMountTargetSnapshotsApiResponse``."""
    snapshots = call.state.visible_snapshots(share_of(call))
    page = page_of(snapshots, wire.snapshot, call.request.query, wire.SNAPSHOT_FIELDS)
    return envelope.many(
        call.request, "files.v4.config.ListMountTargetSnapshotsApiResponse", "files.v4.config.Snapshot", page
    )


@router.on("GET", SNAPSHOT, "View_Mount_Target_Snapshot")
def get_snapshot(call: Call) -> Answer:
    """``GetMountTargetSnapshotApiResponse``."""
    _, snapshot = _named(call)
    return envelope.one(
        call.request,
        "files.v4.config.GetMountTargetSnapshotApiResponse",
        wire.snapshot(snapshot),
        etag=wire.etag(snapshot.id, 1),
    )


@router.on("POST", SNAPSHOTS, "Create_Mount_Target_Snapshot")
def create_snapshot(call: Call) -> Answer:
    """The snapshot appears at the task's success. Whatever ``type`` was sent, it is ``USER_SNAPSHOT``."""
    share = share_of(call)
    check = Checker(body_of(call.request))
    name = check.file_name("name", most=80) or ""
    check.done()
    need_snapshots(share)
    coming = [
        task.arguments["name"]
        for task in call.world.tasks.open_tasks(CREATE_SNAPSHOT)
        if task.arguments["share"] == share.id and task.fault != "lie"
    ]
    present = call.state.visible_snapshots(share)
    if name in coming or any(each.name == name for each in present):
        raise ApiError("snapshot_exists", name=name)
    limit = call.state.settings.max_snapshots_per_share
    if len(present) + len(coming) >= limit:
        raise ApiError("snapshot_limit", name=share.name, limit=limit)
    arguments = {"share": share.id, "snapshot": new_id(), "name": name, "type": "USER_SNAPSHOT"}
    task = call.start_task(CREATE_SNAPSHOT, arguments, [_entity(call, share)])
    return envelope.task(call.request, "files.v4.config.CreateMountTargetSnapshotApiResponse", task)


@router.on("DELETE", SNAPSHOT, "Delete_Mount_Target_Snapshot")
def delete_snapshot(call: Call) -> Answer:
    """202 and a task; the snapshot answers 200 until the task ends. Refused while the snapshot is in use."""
    share, snapshot = _named(call)
    _refuse_busy(call, snapshot)
    made = call.world.work.entity("snapshot", snapshot.id, snapshot.name)
    arguments = {"share": share.id, "snapshot": snapshot.id}
    task = call.start_task(DELETE_SNAPSHOT, arguments, [_entity(call, share), made])
    return envelope.task(call.request, "files.v4.config.DeleteMountTargetSnapshotApiResponse", task)


@router.on("POST", SNAPSHOT + "/$actions/restore", "Restore_Mount_Target")
def restore(call: Call) -> Answer:
    """The live files become the snapshot's; ``If-Match`` is the ETag of the mount target. Newer snapshots stay."""
    share, snapshot = _named(call)
    need_match(call, wire.etag(share.id, share.version), f"mount target {share.name}")
    need_snapshots(share)
    arguments = {"share": share.id, "snapshot": snapshot.id}
    task = call.start_task(RESTORE, arguments, [_entity(call, share)])
    return envelope.task(call.request, "files.v4.config.RestoreMountTargetApiResponse", task)


def _refuse_busy(call: Call, snapshot: Snapshot) -> None:
    if call.world.contents.computing(snapshot):
        raise ApiError("snapshot_busy", name=snapshot.name, why="changed contents are being computed")
    for operation, why in ((RESTORE, "it is being restored"), (CLONE, "it is being cloned")):
        for task in call.world.tasks.open_tasks(operation):
            if task.arguments["snapshot"] == snapshot.id:
                raise ApiError("snapshot_busy", name=snapshot.name, why=why)


def _entity(call: Call, share: Share) -> Entity:
    return call.world.work.entity("mount-target", share.id, share.name)
