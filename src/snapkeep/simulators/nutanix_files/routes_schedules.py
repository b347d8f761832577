"""Snapshot schedules: kept and shown, not carried out. Documented: synchronous. Assumed: 201 and 204."""

from typing import Any

from snapkeep.simulators.kit.web import Answer, Router
from snapkeep.simulators.nutanix_files import envelope, wire
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.guards import Handler, need_match
from snapkeep.simulators.nutanix_files.model import Schedule
from snapkeep.simulators.nutanix_files.query import page_of
from snapkeep.simulators.nutanix_files.routes_shares import SERVERS
from snapkeep.simulators.nutanix_files.state import new_id
from snapkeep.simulators.nutanix_files.validation import Checker, Json, body_of
from snapkeep.simulators.nutanix_files.world import Call

router: Router[Handler] = Router()
SCHEDULES = SERVERS + "/{fsId}/snapshot-schedules"
SCHEDULE = SCHEDULES + "/{scheduleId}"


def _named(call: Call) -> Schedule:
    server = call.state.file_server(call.parameters["fsId"])
    found = call.state.schedules.get(call.parameters["scheduleId"])
    if found is None or found.file_server != server.id:
        raise ApiError("schedule_not_found", id=call.parameters["scheduleId"])
    return found


def _answer(call: Call, kind: str, schedule: Schedule, status: int) -> Answer:
    etag = wire.etag(schedule.id, schedule.version)
    response = f"files.v4.config.{kind}SnapshotScheduleApiResponse"
    return envelope.one(call.request, response, wire.schedule(schedule), etag=etag, status=status)


@router.on("GET", SCHEDULES, "View_Snapshot_Schedule")
def list_schedules(call: Call) -> Answer:
    """``ListSnapshotSchedulesApiResponse``."""
    server = call.state.file_server(call.parameters["fsId"])
    every = [each for each in call.state.schedules.values() if each.file_server == server.id]
    page = page_of(every, wire.schedule, call.request.query, wire.SCHEDULE_FIELDS)
    return envelope.many(
        call.request,
        "files.v4.config.ListSnapshotSchedulesApiResponse",
        "files.v4.config.SnapshotSchedule",
        page,
    )


@router.on("GET", SCHEDULE, "View_Snapshot_Schedule")
def get_schedule(call: Call) -> Answer:
    """``GetSnapshotScheduleApiResponse``."""
    return _answer(call, "Get", _named(call), 200)


@router.on("POST", SCHEDULES, "Create_Snapshot_Schedule")
def create_schedule(call: Call) -> Answer:
    """A new schedule, at once."""
    server = call.state.file_server(call.parameters["fsId"])
    schedule = Schedule(id=new_id(), file_server=server.id, **_fields(body_of(call.request)))
    call.state.save(schedule)
    return _answer(call, "Create", schedule, 201)


@router.on("PUT", SCHEDULE, "Update_Snapshot_Schedule")
def update_schedule(call: Call) -> Answer:
    """Needs ``If-Match``."""
    schedule = _named(call)
    need_match(call, wire.etag(schedule.id, schedule.version), "the snapshot schedule")
    for name, value in _fields(body_of(call.request)).items():
        setattr(schedule, name, value)
    schedule.version += 1
    call.state.save(schedule)
    return _answer(call, "Update", schedule, 200)


@router.on("DELETE", SCHEDULE, "Delete_Snapshot_Schedule")
def delete_schedule(call: Call) -> Answer:
    """At once, without a body."""
    call.state.remove(_named(call))
    return Answer(204)


def _fields(body: Json) -> dict[str, Any]:
    check = Checker(body)
    fields = {
        "type": check.word("type", ("HOURLY", "DAILY", "WEEKLY", "MONTHLY"), required=True),
        "schedule": check.object("schedule", required=True),
        "max_retention_count": check.number("maxRetentionCount", least=1, most=50, required=True),
    }
    check.done()
    return fields
