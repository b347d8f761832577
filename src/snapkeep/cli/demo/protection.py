"""The last part of the story: a policy, what it says about what is there, and what is covered."""

from __future__ import annotations

import json
from typing import Any

TEXT = """\
# What people work on
name: projects
assets: [{system: files1, name: projects}]
rpo: 2h
steps:
  - {name: hourly, do: snapshot, schedule: 0 * * * *, keep: {hourly: 24, daily: 7}}
  - {name: nightly, do: backup, repository: vault, schedule: 30 22 * * *, keep: {daily: 14, monthly: 12}}
"""

Json = dict[str, Any]


def apply(rest: Any) -> Json:
    """Apply the policy; return it as the server has it."""
    return dict(rest.request("PUT", "/policies/projects", json={"text": TEXT}))


def plan(rest: Any) -> tuple[list[Json], Json]:
    """Return what retention does with each snapshot and recovery point, and the end of the plan."""
    *items, end = [json.loads(line) for line in rest.stream("/policies/projects/plan", [])]
    return items, end


def coverage(rest: Any) -> dict[str, Json]:
    """Return how it is with each asset."""
    return {row["asset"]: row for row in rest.pages("/coverage")}
