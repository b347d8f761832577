"""File servers and mount targets.

Documented: paths, verbs, models and ``If-Match``. Assumed: all refusals' codes, the permissions' names, that a new
nested mount target is one whose ``path`` is ``<parent's name>/<folder>``, and that a share goes with its snapshots.
"""

from typing import Any

import msgspec

from snapkeep.simulators.kit.web import Answer, Router
from snapkeep.simulators.nutanix_files import envelope, wire
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.guards import Handler, need_match
from snapkeep.simulators.nutanix_files.model import Share
from snapkeep.simulators.nutanix_files.query import page_of
from snapkeep.simulators.nutanix_files.state import new_id
from snapkeep.simulators.nutanix_files.validation import Checker, Json, body_of
from snapkeep.simulators.nutanix_files.wire import MOUNT_TARGET_OTHER
from snapkeep.simulators.nutanix_files.work import CLONE, CREATE_SHARE, DELETE_SHARE, UPDATE_SHARE
from snapkeep.simulators.nutanix_files.world import Call

router: Router[Handler] = Router()
SERVERS = "/api/files/v4.0/config/file-servers"
SHARES = SERVERS + "/{fsId}/mount-targets"
SHARE = SHARES + "/{mtId}"
TYPES = ("HOMES", "GENERAL", "DISTRIBUTED", "STANDARD")
PROTOCOLS = ("SMB", "NFS", "NONE", "INCOMPATIBLE")


def share_of(call: Call) -> Share:
    """The share that the path names."""
    return call.state.share(call.parameters["fsId"], call.parameters["mtId"])


def _json(call: Call, share: Share) -> Json:
    parent = call.state.share_by_id.get(share.parent) if share.parent else None
    return wire.mount_target(share, parent)


@router.on("GET", SERVERS, "View_File_Server")
def list_file_servers(call: Call) -> Answer:
    """``ListFileServersApiResponse``."""
    servers = list(call.state.file_servers.values())
    page = page_of(servers, wire.file_server, call.request.query, wire.FILE_SERVER_FIELDS)
    return envelope.many(call.request, "files.v4.config.ListFileServersApiResponse", "files.v4.config.FileServer", page)


@router.on("GET", SERVERS + "/{fsId}", "View_File_Server")
def get_file_server(call: Call) -> Answer:
    """``GetFileServerApiResponse``."""
    server = call.state.file_server(call.parameters["fsId"])
    etag = wire.etag(server.id, server.version)
    return envelope.one(call.request, "files.v4.config.GetFileServerApiResponse", wire.file_server(server), etag=etag)


@router.on("GET", SHARES, "View_Mount_Target")
def list_mount_targets(call: Call) -> Answer:
    """``ListMountTargetsApiResponse``."""
    server = call.state.file_server(call.parameters["fsId"])
    shares = list(call.state.shares[server.id].values())
    page = page_of(shares, lambda each: _json(call, each), call.request.query, wire.MOUNT_TARGET_FIELDS)
    return envelope.many(
        call.request, "files.v4.config.ListMountTargetsApiResponse", "files.v4.config.MountTarget", page
    )


@router.on("GET", SHARE, "View_Mount_Target")
def get_mount_target(call: Call) -> Answer:
    """``GetMountTargetApiResponse`` with the ETag that PUT and restore need."""
    share = share_of(call)
    return envelope.one(
        call.request,
        "files.v4.config.GetMountTargetApiResponse",
        _json(call, share),
        etag=wire.etag(share.id, share.version),
    )


@router.on("POST", SHARES, "Create_Mount_Target")
def create_mount_target(call: Call) -> Answer:
    """A new share, at the task's success."""
    server = call.state.file_server(call.parameters["fsId"])
    fields = _fields(body_of(call.request))
    path = str(fields.pop("path", None) or "").strip("/")
    parent_name, _, folder = path.partition("/")
    share = Share(id=new_id(), file_server=server.id, **fields)
    if path:
        parent = call.state.share_named(server.id, parent_name)
        if parent is None or parent.parent or not folder or ".." in folder.split("/"):
            raise ApiError("share_invalid", why=f"path must be <mount target>/<folder>, not {path!r}")
        share.parent, share.folder, share.type = parent.id, folder, parent.type
    _refuse_name(call, server.id, share.name)
    task = call.start_task(CREATE_SHARE, {"created": msgspec.to_builtins(share)}, [])
    return envelope.task(call.request, "files.v4.config.CreateMountTargetApiResponse", task)


@router.on("PUT", SHARE, "Update_Mount_Target")
def update_mount_target(call: Call) -> Answer:
    """Needs ``If-Match``. Fields that are absent keep their values (assumed)."""
    share = share_of(call)
    need_match(call, wire.etag(share.id, share.version), f"mount target {share.name}")
    fields = _fields(body_of(call.request))
    fields.pop("path", None)
    fields["other"] = {**share.other, **fields["other"]}
    if str(fields["name"]).casefold() != share.name.casefold():
        _refuse_name(call, share.file_server, str(fields["name"]))
    share.version += 1
    call.state.save(share)
    entity = call.world.work.entity("mount-target", share.id, share.name)
    task = call.start_task(UPDATE_SHARE, {"share": share.id, "changes": fields}, [entity])
    return envelope.task(call.request, "files.v4.config.UpdateMountTargetApiResponse", task)


@router.on("DELETE", SHARE, "Delete_Mount_Target")
def delete_mount_target(call: Call) -> Answer:
    """Refused while it has nested shares."""
    share = share_of(call)
    if call.state.nested_in(share):
        raise ApiError("share_busy", name=share.name, why="it has nested mount targets")
    entity = call.world.work.entity("mount-target", share.id, share.name)
    task = call.start_task(DELETE_SHARE, {"share": share.id}, [entity])
    return envelope.task(call.request, "files.v4.config.DeleteMountTargetApiResponse", task)


@router.on("POST", SHARE + "/$actions/clone", "Clone_Mount_Target")
def clone_mount_target(call: Call) -> Answer:
    """A new share with a volume of its own, from a snapshot or (without ``snapshotExtId``) from the live files."""
    share = share_of(call)
    check = Checker(body_of(call.request))
    name = check.file_name("name", most=80)
    description = check.text("description", most=180)
    snapshot_id = check.text("snapshotExtId", most=64)
    check.done()
    if share.parent is not None:
        raise ApiError("snapshot_nested", name=share.name)
    if snapshot_id is not None:
        call.state.snapshot(share, snapshot_id)
    _refuse_name(call, share.file_server, name or "")
    other = {**share.other, **({"description": description} if description else {})}
    made = msgspec.structs.replace(
        share, id=new_id(), name=name or "", other=other, paused=False, version=1, last_sequence=0
    )
    arguments = {"share": share.id, "snapshot": snapshot_id, "clone": msgspec.to_builtins(made)}
    entity = call.world.work.entity("mount-target", share.id, share.name)
    task = call.start_task(CLONE, arguments, [entity])
    return envelope.task(call.request, "files.v4.config.CloneMountTargetApiResponse", task)


def _refuse_name(call: Call, file_server: str, name: str) -> None:
    wanted = name.casefold()
    coming = [
        task.arguments[key]["name"].casefold()
        for operation, key in ((CREATE_SHARE, "created"), (CLONE, "clone"))
        for task in call.world.tasks.open_tasks(operation)
        if task.arguments[key]["file_server"] == file_server
    ]
    if wanted in coming or call.state.share_named(file_server, name) is not None:
        raise ApiError("share_exists", name=name)


def _fields(body: Json) -> dict[str, Any]:
    """The body as fields of :class:`Share`; read-only and unknown ones are ignored."""
    check = Checker(body)
    fields: dict[str, Any] = {
        "name": check.file_name("name", most=80),
        "type": check.word("type", TYPES),
        "protocol": check.word("protocol", PROTOCOLS),
        "path": check.text("path", most=4095),
        "paused": check.flag("isSnapshotPaused"),
    }
    check.text("description", most=180)
    check.number("maxSizeGB", least=0)
    secondary = body.get("secondaryProtocol")
    if isinstance(secondary, list) and all(each in PROTOCOLS for each in secondary):
        fields["secondary"] = secondary
    elif secondary is not None:
        check.complain("secondaryProtocol", "secondaryProtocol must be a list of protocols")
    check.done()
    kept = {name: value for name, value in fields.items() if value is not None}
    other = {name: body[name] for name in MOUNT_TARGET_OTHER if body.get(name) is not None}
    return {**kept, "other": other}
