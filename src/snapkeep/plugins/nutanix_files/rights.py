"""What the account may, and how an administrator of Prism Central grants it.

Documented: the endpoints (SDK `ntnx-files-py-client` 4.0.1), and that a role is a list of operations, each of which
names its endpoints (`associatedEndpointList`, SDK `ntnx-iam-py-client` 4.0.1). Assumed: the names of the operations of
Files, after the form of those that are public (`Verb_Entity`); they are in no public document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from snapkeep.model.assets import Capability
from snapkeep.plugin.grants import Instructions, Right
from snapkeep.plugins.nutanix_files.client import FILES, TASKS

_SERVERS = f"{FILES}/config/file-servers"
_SHARES = f"{_SERVERS}/{{fileServerExtId}}/mount-targets"
_SHARE = f"{_SHARES}/{{extId}}"
_SNAPSHOTS = f"{_SHARES}/{{mountTargetExtId}}/snapshots"
_PARTNERS = f"{_SERVERS}/{{fileServerExtId}}/partner-servers"

ENDPOINTS: Mapping[str, tuple[str, ...]] = {
    "View_File_Server": (f"GET {_SERVERS}",),
    "View_Mount_Target": (f"GET {_SHARES}", f"GET {_SHARE}"),
    "View_Mount_Target_Snapshot": (f"GET {_SNAPSHOTS}", f"GET {_SNAPSHOTS}/{{extId}}"),
    "View_Task": (f"GET {TASKS}/{{extId}}",),
    "Create_Mount_Target_Snapshot": (f"POST {_SNAPSHOTS}",),
    "Delete_Mount_Target_Snapshot": (f"DELETE {_SNAPSHOTS}/{{extId}}",),
    "Restore_Mount_Target": (f"POST {_SNAPSHOTS}/{{extId}}/$actions/restore",),
    "Clone_Mount_Target": (f"POST {_SHARE}/$actions/clone",),
    "View_Partner_Server": (f"GET {_PARTNERS}", f"GET {_PARTNERS}/{{extId}}"),
    "Update_Partner_Server": (f"PUT {_PARTNERS}/{{extId}}",),
    "Compute_Snapshot_Change": (f"POST {_SHARE}/$actions/compute-snapshot-change",),
    "View_Snapshot_Changed_Content": (f"GET {_SHARES}/{{mountTargetExtId}}/snapshot-changed-contents/{{extId}}",),
}
"""The requests of this plug-in, by the right that each needs."""

_WORK = ("View_File_Server", "View_Task")
"""All but reading looks the file server up by its name, and waits for tasks."""

PERMISSIONS: Mapping[Capability, tuple[str, ...]] = {
    Capability.DISCOVER: ("View_File_Server", "View_Mount_Target", "View_Mount_Target_Snapshot"),
    Capability.CREATE: (*_WORK, "Create_Mount_Target_Snapshot", "View_Mount_Target_Snapshot"),
    Capability.DELETE: (*_WORK, "Delete_Mount_Target_Snapshot", "View_Mount_Target_Snapshot"),
    Capability.RESTORE: (*_WORK, "Restore_Mount_Target", "View_Mount_Target"),
    Capability.CLONE: (*_WORK, "Clone_Mount_Target", "View_Mount_Target"),
    Capability.EXPORT: (
        *(*_WORK, "View_Mount_Target", "View_Mount_Target_Snapshot"),
        *("View_Partner_Server", "Update_Partner_Server"),
    ),
    Capability.DIFF_FILES: (
        *("View_File_Server", "Compute_Snapshot_Change", "View_Snapshot_Changed_Content"),
        *("View_Mount_Target", "View_Mount_Target_Snapshot"),
    ),
}


def instructions(rights: Sequence[Right], capabilities: Sequence[Capability]) -> Instructions:
    """Return the role to make: its request, and how the ids of its operations are found."""
    body = {
        "displayName": "Snapkeep",
        "description": f"What Snapkeep needs to {', '.join(capabilities)}",
        "operations": [f"<extId of {right.name}>" for right in rights],
    }
    limits = [
        "The vendor publishes no list of the operations of Files: these names are assumed, after the form of those "
        "that are public. The requests beside them are documented; look an operation up by its request.",
        "An operation counts for all that the authorization policy names. No public document says whether a policy can "
        "name less than a file server: a single share, for instance.",
    ]
    if Capability.EXPORT in capabilities:
        limits.append(
            "The right to change a partner server is the right to change each one of the file server, those of other "
            "programs, too: nothing finer is documented."
        )
    return Instructions(
        kind="role of Prism Central",
        text=json.dumps(body, indent=2) + "\n",
        steps=(
            "In Prism Central, Admin Center, IAM, Roles: create a role with these operations. Or by REST, as follows.",
            "GET /api/iam/v4.0/authz/operations lists the operations, each with its requests (associatedEndpointList): "
            "put the extId of each into the body.",
            "POST /api/iam/v4.0/authz/roles with the body.",
            "Give the role to the account for the file server: an authorization policy "
            "(POST /api/iam/v4.0/authz/authorization-policies).",
            "snapkeep system check NAME says whether it is enough.",
        ),
        limits=tuple(limits),
    )
