"""What this process counts while it works. Below the server, only this file knows Prometheus."""

from __future__ import annotations

from typing import Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from snapkeep import __version__
from snapkeep.catalog.records import OperationRecord

REGISTRY = CollectorRegistry(auto_describe=True)
"""The instruments of this process; not the library's own registry, in which everything of a process meets."""

Retry = Literal["system_unavailable", "request_repeated", "database_away"]
"""Why something is tried again: work under way on a system out of reach; one HTTP request; the catalog's database."""

PolicyOutcome = Literal["asked", "skipped", "refused"]
"""What became of a due run of a policy: its operation is recorded; it was left out; it cannot be."""

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the lines and say nothing

_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600)

_ended = Counter(
    "snapkeep_operations_ended",
    "Operations that ended, by kind, end and the code of the error (empty without one).",
    ("kind", "end", "code"),
    registry=REGISTRY,
)
_duration = Histogram(
    "snapkeep_operation_duration_seconds",
    "From the begin of an operation to its end.",
    ("kind",),
    buckets=_BUCKETS,
    registry=REGISTRY,
)
_wait = Histogram(
    "snapkeep_operation_wait_seconds",
    "From the request of an operation to its begin.",
    ("kind",),
    buckets=_BUCKETS,
    registry=REGISTRY,
)
_retries = Counter("snapkeep_retries", "What was tried again, by reason.", ("reason",), registry=REGISTRY)
_takeovers = Counter("snapkeep_takeovers", "Operations taken over from another worker.", registry=REGISTRY)
_policy_runs = Counter("snapkeep_policy_runs", "Due runs of policies, by outcome.", ("outcome",), registry=REGISTRY)
_build = Gauge("snapkeep_build_info", "The release that runs; always 1.", ("version",), registry=REGISTRY)
_build.labels(__version__).set(1)
for _reason in ("system_unavailable", "request_repeated", "database_away"):
    _retries.labels(_reason)  # there from the beginning, as 0: the first retry shows as an increase
for _outcome in ("asked", "skipped", "refused"):
    _policy_runs.labels(_outcome)
ProcessCollector(registry=REGISTRY)


def operation_begun(record: OperationRecord) -> None:
    """Note that an operation began for the first time."""
    if record.started_at is not None:
        _wait.labels(record.kind).observe(max(0.0, (record.started_at - record.created_at).total_seconds()))


def operation_ended(record: OperationRecord) -> None:
    """Note the end of an operation; `record` has it. What never began has no duration."""
    _ended.labels(record.kind, record.state.value, (record.error or {}).get("code", "")).inc()
    if record.started_at is not None and record.ended_at is not None:
        _duration.labels(record.kind).observe(max(0.0, (record.ended_at - record.started_at).total_seconds()))


def retried(reason: Retry) -> None:
    """Note that something is tried again."""
    _retries.labels(reason).inc()


def taken_over() -> None:
    """Note that an operation goes on here which another worker began."""
    _takeovers.inc()


def policy_ran(outcome: PolicyOutcome) -> None:
    """Note what became of a due run of a policy."""
    _policy_runs.labels(outcome).inc()
