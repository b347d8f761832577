"""Drive a simulator with the vendor's own SDK; run by a Python that has it, not by the project's.

    nutanix_sdk_flow.py URL CA_FILE USERNAME PASSWORD API_KEY LIVE_DIRECTORY

One line for each step; exit status 1 at the first surprise.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ntnx_files_py_client as files  # type: ignore[import-not-found]
import ntnx_prism_py_client as prism  # type: ignore[import-not-found]
from ntnx_files_py_client.models.common.v1.config.FQDN import FQDN  # type: ignore[import-not-found]
from ntnx_files_py_client.models.common.v1.config.IPAddressOrFQDN import IPAddressOrFQDN  # type: ignore[import-not-found]
from ntnx_files_py_client.models.common.v1.config.IPv4Address import IPv4Address  # type: ignore[import-not-found]
from ntnx_files_py_client.rest import ApiException  # type: ignore[import-not-found]

config = files.models.files.v4.config


def step(text: str, fine: object, detail: object = "") -> None:
    print(f"{'ok' if fine else 'SURPRISE'}: {text} {detail}".rstrip(), flush=True)
    if not fine:
        sys.exit(1)


def configured(module: Any, url: str, ca_file: str, **credentials: str) -> Any:
    configuration = module.Configuration()
    parts = urlsplit(url)
    configuration.scheme, configuration.host, configuration.port = parts.scheme, parts.hostname, parts.port
    configuration.verify_ssl = True
    configuration.root_ca_certificate_file = ca_file
    configuration.max_retry_attempts = 1
    configuration.backoff_factor = 0.1
    if "api_key" in credentials:
        configuration.set_api_key(credentials["api_key"])
    else:
        configuration.username, configuration.password = credentials["username"], credentials["password"]
    return module.ApiClient(configuration=configuration)


class Flow:
    def __init__(self, client: Any, prism_client: Any, live: Path) -> None:
        self.live = live
        self.servers = files.FileServersApi(client)
        self.shares = files.MountTargetsApi(client)
        self.snapshots = files.SnapshotsApi(client)
        self.partners = files.PartnerServersApi(client)
        self.contents = files.SnapshotChangedContentsApi(client)
        self.schedules = files.SnapshotSchedulesApi(client)
        self.policies = files.ReplicationPoliciesApi(client)
        self.jobs = files.ReplicationJobsApi(client)
        self.tasks = prism.TasksApi(prism_client)
        self.client = client
        self.server = self.share = ""

    def wait(self, response: Any) -> Any:
        reference = response.data
        step("the answer is a task", type(reference).__name__ == "TaskReference", reference.ext_id)
        end = time.monotonic() + 20
        while True:
            task = self.tasks.get_task_by_id(reference.ext_id).data
            if task.status in {"SUCCEEDED", "FAILED"}:
                step("the task succeeded", task.status == "SUCCEEDED", task.error_messages or "")
                return task
            if time.monotonic() > end:
                step("the task ends in time", False, task.status)
            time.sleep(0.02)

    def refused(self, status: int, text: str, call: Any, *arguments: Any, **more: Any) -> Any:
        """The call is refused with this status; returns the parsed error."""
        try:
            call(*arguments, **more)
        except ApiException as error:
            step(f"{text}: {status}", error.status == status, error.status)
            data = json.loads(error.body)["data"]
            parsed = self.client.deserialize(data, "files.v4.error.ErrorResponse")
            step("it is an ErrorResponse", type(parsed).__name__ == "ErrorResponse", type(parsed.error).__name__)
            return parsed.error
        return step(f"{text}: {status}", False, "no error")

    def discover(self) -> None:
        servers = self.servers.list_file_servers(_limit=1, _page=0)
        step("file servers, first page", len(servers.data) == 1, servers.metadata.total_available_results)
        step("typed", type(servers.data[0]).__name__ == "FileServer", servers.data[0].name)
        found = self.servers.list_file_servers(_filter="name eq 'files1'").data
        self.server = found[0].ext_id
        step("one file server", self.servers.get_file_server_by_id(self.server).data.name == "files1")
        shares = self.shares.list_mount_targets(self.server, _orderby="name desc").data
        names = [share.name for share in shares]
        step("mount targets in order", names == ["projects", "homes", "archive"], names)
        step("enumerations", shares[1].type == config.MountTargetType.MountTargetType.DISTRIBUTED, shares[1].type)
        step("nested", shares[2].parent_mount_target_ext_id == shares[0].ext_id, shares[2].path)
        words = "type eq Files.Config.MountTargetType'STANDARD' and startswith(name,'pro')"
        chosen = self.shares.list_mount_targets(self.server, _filter=words, _select="name,extId").data
        step("filter and select", [share.name for share in chosen] == ["projects"] and chosen[0].type is None)
        self.share = chosen[0].ext_id
        empty = self.shares.list_mount_targets(self.server, _filter="name eq 'none'")
        step("an empty list", empty.data == [], empty.metadata.total_available_results)
        flags = {flag.name: flag.value for flag in empty.metadata.flags}
        step("flags", flags["hasError"] is False, flags)

    def create(self, name: str) -> str:
        body = config.Snapshot.Snapshot(name=name)
        task = self.wait(self.snapshots.create_mount_target_snapshot(self.server, self.share, body))
        made = [each.ext_id for each in task.entities_affected if "snapshot" in each.rel]
        step("the task names the snapshot", len(made) == 1, made)
        return str(made[0])

    def snapshot(self) -> None:
        made = self.create("NB000000000000000000001")
        found = self.snapshots.get_mount_target_snapshot_by_id(self.server, self.share, made).data
        step("a user snapshot", found.type == config.SnapshotType.SnapshotType.USER_SNAPSHOT, found.create_time)
        listed = self.snapshots.list_mount_target_snapshots(
            self.server, self.share, _filter=f"name eq '{found.name}'"
        ).data
        step("listed", [each.ext_id for each in listed] == [made])
        again = config.Snapshot.Snapshot(name=found.name)
        create = self.snapshots.create_mount_target_snapshot
        error = self.refused(409, "a taken name", create, self.server, self.share, again)
        step("AppMessage", type(error[0]).__name__ == "AppMessage" and error[0].severity == "ERROR", error[0].code)
        error = self.refused(
            400, "a bad limit", self.snapshots.list_mount_target_snapshots, self.server, self.share, _limit=500
        )
        complaint = error.validation_error_messages[0]
        step("SchemaValidationError", complaint.attribute_path == "$limit", complaint.message)
        get = self.snapshots.get_mount_target_snapshot_by_id
        delete = self.snapshots.delete_mount_target_snapshot_by_id
        self.wait(delete(self.server, self.share, made))
        self.refused(404, "after the delete", get, self.server, self.share, made)
        self.refused(404, "a second delete", delete, self.server, self.share, made)

    def entry(self, operation: str, address: IPAddressOrFQDN) -> Any:
        return config.BackupServerAccessControlBlock.BackupServerAccessControlBlock(
            address=address, access_type="READ_ONLY", mount_target_ext_id=self.share, operation_type=operation
        )

    def partner(self) -> None:
        body = config.PartnerServer.PartnerServer(
            name="snapkeep",
            vendor_name="Snapkeep",
            partner_type=config.PartnerType.PartnerType.BACKUP,
            backup_server_config=config.BackupServerConfig.BackupServerConfig(expiry_in_secs=3600),
        )
        task = self.wait(self.partners.create_partner_server(self.server, body))
        one = task.entities_affected[0].ext_id
        get, update = self.partners.get_partner_server_by_id, self.partners.update_partner_server_by_id
        found = get(self.server, one).data
        etag = files.ApiClient.get_etag(found)
        step("ETag in the object", etag is not None, etag)
        step("expiry", found.backup_server_config.expiry_in_secs == 3600)
        stale = get(self.server, one).data
        host = IPAddressOrFQDN(ipv4=IPv4Address(value="10.9.8.7"))
        name = IPAddressOrFQDN(fqdn=FQDN(value="backup.example.com"))
        found.backup_server_config.backup_client_access_configs = [
            self.entry("ADD", host),
            self.entry("ADD", name),
        ]
        self.wait(update(self.server, one, found))
        now = get(self.server, one).data
        entries = now.backup_server_config.backup_client_access_configs
        step("two entries", len(entries) == 2 and entries[0].mount_target_ext_id == self.share)
        step("addresses", entries[0].address.ipv4.value == "10.9.8.7", entries[1].address.fqdn.value)
        self.refused(412, "a stale ETag", update, self.server, one, stale)
        now.backup_server_config.backup_client_access_configs = [self.entry("REMOVE", host)]
        self.wait(update(self.server, one, now, if_match=files.ApiClient.get_etag(now)))
        left = get(self.server, one).data.backup_server_config.backup_client_access_configs
        step("one entry is left", [each.address.fqdn.value for each in left] == ["backup.example.com"])
        listed = self.partners.list_partner_servers(self.server, _filter="name eq 'snapkeep'").data
        step("listed", [each.ext_id for each in listed] == [one])
        self.wait(self.partners.delete_partner_server_by_id(self.server, one))
        self.refused(404, "after the delete", get, self.server, one)

    def changes(self) -> None:
        base = self.create("base")
        expected = [f"file-{number:04d}" for number in range(650)] + [os.fsdecode(b"file-\xff")]
        for name in expected:
            (self.live / name).write_text("content")
        new = self.create("new")
        spec = config.ComputeSnapshotChangeSpec.ComputeSnapshotChangeSpec(
            snapshot_ext_id=new, base_snapshot_ext_id=base, should_show_relative_path=True
        )
        messages = self.contents.compute_snapshot_change(self.server, self.share, spec).data
        step("AppMessages, no task", type(messages[0]).__name__ == "AppMessage", messages[0].arguments_map)
        content = messages[0].arguments_map["extId"]
        get = self.contents.get_snapshot_changed_content_by_id
        token, sizes, paths = None, [], []
        while True:
            response = get(self.server, self.share, content, X_Next_Page_Token=token)
            entries = response.data.changed_contents or []
            if entries:
                sizes.append(len(entries))
                paths += [each.path for each in entries if each.operation_type == "ADD"]
            if not response.data.has_more_content:
                break
            header = self.client.last_response.getheader("X-Next-Page-Token")
            extra = {each.name: each.value for each in response.metadata.extra_info}
            if header != extra["nextPageToken"]:
                step("the token in both places", False, (header, extra))
            token = header
            time.sleep(0 if entries else 0.02)
        step("pages of 300", sizes == [300, 300, 51], sizes)
        step("all paths", sorted(paths) == sorted(expected))
        step("typed", type(entries[0]).__name__ == "ChangedContent", entries[0].change_time)
        listed = self.contents.list_snapshot_changed_contents(
            self.server, self.share, _filter=f"snapshotExtId eq '{new}'"
        ).data
        step("listed", [each.ext_id for each in listed] == [content])
        self.refused(400, "a wrong token", get, self.server, self.share, content, X_Next_Page_Token="wrong")
        spec = config.ComputeSnapshotChangeSpec.ComputeSnapshotChangeSpec(
            snapshot_ext_id=base, base_snapshot_ext_id=new
        )
        compute = self.contents.compute_snapshot_change
        self.refused(400, "a base that is newer", compute, self.server, self.share, spec)
        self.restore(base)
        self.clone(new)

    def restore(self, base: str) -> None:
        share = self.shares.get_mount_target_by_id(self.server, self.share).data
        etag = files.ApiClient.get_etag(share)
        restore = self.snapshots.restore_mount_target
        self.refused(412, "restore without ETag", restore, self.server, self.share, base)
        self.wait(restore(self.server, self.share, base, if_match=etag))
        step("the files are gone again", not list(self.live.glob("file-*")))

    def clone(self, snapshot: str) -> None:
        body = config.MountTargetCloneSpec.MountTargetCloneSpec(name="copy", snapshot_ext_id=snapshot)
        task = self.wait(self.shares.clone_mount_target(self.server, self.share, body))
        made = task.entities_affected[-1]
        found = self.shares.get_mount_target_by_id(self.server, made.ext_id).data
        step("the clone", found.name == "copy", made.rel)
        found.description = "changed"
        self.wait(self.shares.update_mount_target_by_id(self.server, made.ext_id, found))
        changed = self.shares.get_mount_target_by_id(self.server, made.ext_id).data
        step("the clone changed", changed.description == "changed")
        self.wait(self.shares.delete_mount_target_by_id(self.server, made.ext_id))

    def rest(self) -> None:
        body = config.SnapshotSchedule.SnapshotSchedule(
            type="WEEKLY",
            schedule=config.WeeklySchedule.WeeklySchedule(days_of_week=[1, 3]),
            max_retention_count=7,
        )
        made = self.schedules.create_snapshot_schedule(self.server, body).data
        step("a schedule", made.schedule.days_of_week == [1, 3], type(made.schedule).__name__)
        found = self.schedules.get_snapshot_schedule_by_id(self.server, made.ext_id).data
        found.max_retention_count = 9
        changed = self.schedules.update_snapshot_schedule_by_id(self.server, made.ext_id, found).data
        step("the schedule changed", changed.max_retention_count == 9)
        step("schedules", len(self.schedules.list_snapshot_schedules(self.server).data) == 1)
        self.schedules.delete_snapshot_schedule_by_id(self.server, made.ext_id)
        step("no schedules", self.schedules.list_snapshot_schedules(self.server).data == [])
        policies = self.policies.list_replication_policies().data
        step("replication policies", [each.name for each in policies] == ["dr"], policies[0].type)
        step("replication jobs", self.jobs.list_replication_jobs().data[0].status == "SUCCEEDED")
        tasks = self.tasks.list_tasks(_limit=5, _filter="status eq Prism.Config.TaskStatus'SUCCEEDED'").data
        step("tasks", len(tasks) == 5 and type(tasks[0]).__name__ == "Task", tasks[0].operation)


def main(url: str, ca_file: str, username: str, password: str, api_key: str, live: str) -> None:
    basic = {"username": username, "password": password}
    flow = Flow(configured(files, url, ca_file, **basic), configured(prism, url, ca_file, **basic), Path(live))
    flow.discover()
    flow.snapshot()
    flow.partner()
    flow.changes()
    flow.rest()
    wrong = files.FileServersApi(configured(files, url, ca_file, username=username, password="wrong"))
    try:
        wrong.list_file_servers()
        step("a wrong password: 401", False)
    except ApiException as error:
        step("a wrong password: 401", error.status == 401)
    # Last: all configurations of this SDK share one dictionary of API keys.
    by_key = files.FileServersApi(configured(files, url, ca_file, api_key=api_key))
    step("by API key", len(by_key.list_file_servers().data) == 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
