"""What several routes check."""

from collections.abc import Callable

from snapkeep.simulators.kit.web import Answer
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.model import Share
from snapkeep.simulators.nutanix_files.world import Call

Handler = Callable[[Call], Answer]


def need_match(call: Call, etag: str, what: str) -> None:
    """``If-Match`` must name the present ETag. Raises 412; a missing one is refused by a setting (assumed)."""
    given = call.request.headers.get("if-match")
    if given is None:
        if call.state.settings.etag_required:
            raise ApiError("precondition", what=what)
        return
    wanted = {part.strip().removeprefix("W/").strip('"') for part in given.split(",")}
    if "*" not in wanted and etag not in wanted:
        raise ApiError("precondition", what=what)


def need_snapshots(share: Share) -> None:
    """The share can have snapshots: it is top level, not paused and online. Raises 400 (assumed)."""
    if share.parent is not None:
        raise ApiError("snapshot_nested", name=share.name)
    if share.paused:
        raise ApiError("snapshot_paused", name=share.name)
    if share.state != "ONLINE" or share.status_type != "AVAILABLE":
        raise ApiError("snapshot_offline", name=share.name)
