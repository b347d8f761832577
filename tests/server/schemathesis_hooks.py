"""Keeps schemathesis within the world of the test: loaded by its command line (`SCHEMATHESIS_HOOKS`).

It makes up systems, repositories and targets of restores. Those must be the simulator and a directory of the test,
and no queue may be one that nobody serves: the events of its operations would not end.
"""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis

WORLD = json.loads(os.environ.get("SNAPKEEP_TEST_WORLD", "{}"))
"""`directory`: where things may be made; `settings`: of a system that is the simulator."""


@schemathesis.hook
def before_call(_: Any, case: Any, **__: Any) -> None:
    body = case.body
    if not isinstance(body, dict):
        return
    name = case.operation.definition.raw.get("operationId")
    if name == "add_repository" and isinstance(body.get("location"), str):
        body["location"] = f"{WORLD['directory']}/r{abs(hash(body['location'])) % 50}"
    if name == "restore_backup" and isinstance(body.get("target"), str) and body["target"].startswith("/"):
        body["target"] = f"{WORLD['directory']}/restored"
    if name == "add_system" and isinstance(body.get("settings"), dict) and body.get("plugin") == "nutanix-files":
        body["settings"] = {**body["settings"], **WORLD["settings"]}
    if name == "add_system" and body.get("plugin") == "linux-host":
        body["plugin"] = "another"
    target = body.get("target")
    if name in {"add_channel", "change_channel"} and isinstance(target, dict):  # nothing is sent to anybody
        if "url" in target:
            target["url"] = "http://127.0.0.1:1/"
        if "host" in target:
            target |= {"host": "127.0.0.1", "port": 1}
    if name in {"add_system", "change_system", "add_repository"} and isinstance(body.get("queue"), str):
        body["queue"] = "default"
