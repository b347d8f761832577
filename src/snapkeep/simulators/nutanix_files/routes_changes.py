"""Changed File Tracking: compute the difference of two snapshots, and read it by page.

Documented: the calls, that computing answers with AppMessages instead of a task, 300 entries a page, and
``hasMoreContent``. Assumed: the refusals, where the next token comes back, that a repeated specification finds the
same list, and that an empty page with ``hasMoreContent`` carries the same token again.
"""

import msgspec

from snapkeep.simulators.kit.web import Answer, Router, json_answer
from snapkeep.simulators.nutanix_files import envelope, wire
from snapkeep.simulators.nutanix_files.contents import Content, Spec
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.guards import Handler, need_snapshots
from snapkeep.simulators.nutanix_files.model import Share, Snapshot
from snapkeep.simulators.nutanix_files.query import page_of
from snapkeep.simulators.nutanix_files.routes_shares import SHARE, share_of
from snapkeep.simulators.nutanix_files.validation import Checker, Json, body_of
from snapkeep.simulators.nutanix_files.world import Call

router: Router[Handler] = Router()
CONTENTS = SHARE + "/snapshot-changed-contents"
TOKEN = "X-Next-Page-Token"  # noqa: S105 - a header's name
KIND = "files.v4.config.SnapshotChangedContent"


@router.on("POST", SHARE + "/$actions/compute-snapshot-change", "Compute_Snapshot_Change")
def compute(call: Call) -> Answer:
    """Begin to compute. ``data[0].argumentsMap`` has ``extId`` and ``link`` of the list."""
    share = share_of(call)
    check = Checker(body_of(call.request))
    snapshot_id = check.text("snapshotExtId", most=64, required=True) or ""
    base_id = check.text("baseSnapshotExtId", most=64)
    relative = check.flag("shouldShowRelativePath") or False
    dfs = check.flag("shouldUseDFSNamespace")
    check.done()
    need_snapshots(share)
    snapshot = _snapshot(call, share, snapshot_id)
    base = _snapshot(call, share, base_id) if base_id else None
    if base is not None and base.sequence >= snapshot.sequence:
        raise ApiError("change_base")
    content = call.world.contents.compute(Spec(share, snapshot, base, relative, True if dfs is None else dfs))
    identifier = content.spec.id
    path = call.request.path.replace("$actions/compute-snapshot-change", "snapshot-changed-contents")
    message = wire.app_message(
        "FILES-50202",
        "Changed contents are being computed.",
        "CHANGED_CONTENT",
        severity="INFO",
        arguments={"extId": identifier, "link": f"{path}/{identifier}"},
    )
    body = {
        "data": [message],
        "metadata": envelope.metadata(),
        "$objectType": "files.v4.config.ComputeSnapshotChangeApiResponse",
        "$reserved": wire.RESERVED,
        "$dataItemDiscriminator": "List<files.v4.error.AppMessage>",
    }
    return json_answer(202, body)


@router.on("GET", CONTENTS, "View_Snapshot_Changed_Content")
def list_contents(call: Call) -> Answer:
    """The lists of a share, without their entries."""
    share = share_of(call)
    every = [each for each in call.world.contents.by_id.values() if each.spec.share.id == share.id]
    page = page_of(every, _json, call.request.query, wire.CHANGE_FIELDS)
    return envelope.many(call.request, "files.v4.config.ListSnapshotChangedContentsApiResponse", KIND, page)


@router.on("GET", CONTENTS + "/{contentId}", "View_Snapshot_Changed_Content")
def get_content(call: Call) -> Answer:
    """One page. The request's token names it; without one it is the first."""
    share = share_of(call)
    contents = call.world.contents
    content = contents.find(share, call.parameters["contentId"])
    token = call.request.headers.get(TOKEN.lower())
    entries, following = contents.page(content, contents.offset(content, token) if token else 0)
    meta = envelope.metadata(links=[envelope.link("self", envelope.href(call.request))])
    headers: dict[str, str] = {}
    if following is not None:
        next_token = contents.token(content, following)
        where = call.state.settings.cft_next_token_in
        if where != "extra_info":
            headers[TOKEN] = next_token
        if where != "header":
            meta["extraInfo"] = [_pair("nextPageToken", next_token)]
    data = {**_json(content), "hasMoreContent": following is not None}
    head = msgspec.json.encode(
        {
            "metadata": meta,
            "$objectType": "files.v4.config.GetSnapshotChangedContentApiResponse",
            "$reserved": wire.RESERVED,
            "$dataItemDiscriminator": KIND,
        }
    )
    inner = msgspec.json.encode(data)
    # The entries are JSON already: they are put inside as they are.
    body = b"".join((head[:-1], b',"data":', inner[:-1], b',"changedContents":[', entries, b"]}}"))
    return Answer(200, body, headers)


def _snapshot(call: Call, share: Share, identifier: str) -> Snapshot:
    for other, snapshots in call.state.snapshots.items():
        if identifier in snapshots and other != share.id:
            raise ApiError("change_other_share", id=identifier)
    return call.state.snapshot(share, identifier)


def _json(content: Content) -> Json:
    spec = content.spec
    more = content.status == "COMPUTING" or content.total > 0
    body: Json = {"extId": spec.id, "snapshotExtId": spec.snapshot.id, "hasMoreContent": more}
    if spec.base is not None:
        body["baseSnapshotExtId"] = spec.base.id
    return {**body, "$objectType": KIND, "$reserved": wire.RESERVED}


def _pair(name: str, value: str) -> Json:
    return {
        "name": name,
        "value": value,
        "$valueItemDiscriminator": "String",
        "$objectType": "common.v1.config.KVPair",
        "$reserved": wire.RESERVED,
    }
