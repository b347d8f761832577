"""SmartDR policies and jobs (read only), and Prism's tasks.

The task API answers on every ``/api/prism/v4.x``: a client's SDK chooses the minor version. Tasks cannot be
cancelled.
"""

from snapkeep.simulators.kit.web import Answer, Router
from snapkeep.simulators.nutanix_files import envelope, wire
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.guards import Handler
from snapkeep.simulators.nutanix_files.query import page_of
from snapkeep.simulators.nutanix_files.world import Call

router: Router[Handler] = Router()
POLICIES = "/api/files/v4.0/config/replication-policies"
JOBS = "/api/files/v4.0/operations/replication-jobs"
TASKS = "/api/prism/{version}/config/tasks"
POLICY_TYPE, JOB_TYPE = "files.v4.config.ReplicationPolicy", "files.v4.operations.ReplicationJob"


def _list(call: Call, kind: str, response: str, item: str) -> Answer:
    every = [each for each in call.state.replications.values() if each.kind == kind]
    fields = {name for each in every for name in each.body} | {"extId", "name", "status", "type"}
    page = page_of(every, wire.replication, call.request.query, fields)
    return envelope.many(call.request, response, item, page)


def _get(call: Call, kind: str, response: str) -> Answer:
    found = call.state.replications.get(call.parameters["id"])
    if found is None or found.kind != kind:
        raise ApiError("replication_not_found", id=call.parameters["id"])
    return envelope.one(call.request, response, wire.replication(found), etag=wire.etag(found.id, 1))


@router.on("GET", POLICIES, "View_Replication_Policy")
def list_policies(call: Call) -> Answer:
    """``ListReplicationPoliciesApiResponse``."""
    return _list(call, "policy", "files.v4.config.ListReplicationPoliciesApiResponse", POLICY_TYPE)


@router.on("GET", POLICIES + "/{id}", "View_Replication_Policy")
def get_policy(call: Call) -> Answer:
    """``GetReplicationPolicyApiResponse``."""
    return _get(call, "policy", "files.v4.config.GetReplicationPolicyApiResponse")


@router.on("GET", JOBS, "View_Replication_Job")
def list_jobs(call: Call) -> Answer:
    """``ListReplicationJobsApiResponse``."""
    return _list(call, "job", "files.v4.operations.ListReplicationJobsApiResponse", JOB_TYPE)


@router.on("GET", JOBS + "/{id}", "View_Replication_Job")
def get_job(call: Call) -> Answer:
    """``GetReplicationJobApiResponse``."""
    return _get(call, "job", "files.v4.operations.GetReplicationJobApiResponse")


@router.on("GET", TASKS, "View_Task")
def list_tasks(call: Call) -> Answer:
    """``ListTasksApiResponse``, newest first."""
    clock, skew = call.state.clock(), call.state.settings.clock_skew_seconds
    every = list(reversed(call.world.tasks.by_id.values()))
    page = page_of(every, lambda each: wire.task(each, clock, skew), call.request.query, wire.TASK_FIELDS)
    return envelope.many(call.request, "prism.v4.config.ListTasksApiResponse", "prism.v4.config.Task", page)


@router.on("GET", TASKS + "/{taskId}", "View_Task")
def get_task(call: Call) -> Answer:
    """``GetTaskApiResponse``."""
    identifier = call.parameters["taskId"]
    found = call.world.tasks.by_id.get(identifier.partition(":")[2])
    if found is None or wire.task_id(found.id) != identifier:
        raise ApiError("task_not_found", id=identifier)
    data = wire.task(found, call.state.clock(), call.state.settings.clock_skew_seconds)
    return envelope.one(call.request, "prism.v4.config.GetTaskApiResponse", data)
