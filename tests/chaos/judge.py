"""Afterwards: what was asked for, what the catalog says, and what lies on the system must be one and the same."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.chaos.clients import Ask, Client, facts_below
from tests.chaos.killer import Kills
from tests.chaos.processes import SHARES, SIMULATOR, World
from tests.chaos.rest import Json, Refused, Rest

from snapkeep.model.snapshots import DEFAULT_PREFIX, is_owned_name

CREATE_TASK = "CreateMountTargetSnapshot"
SYSTEM = "files1"
ACCESS_FINDINGS = {"leftover_export", "missing_export"}
SNAPSHOT_FINDINGS = {"forgotten_snapshot", "missing_snapshot"}


@dataclass(slots=True)
class Verdict:
    """What was found. Each list has one sentence for each case; all but `excused` must be empty."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    """Failed with a good reason: what the system itself lost."""
    wrong: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    """What could not be judged, and why."""
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Operations by kind and end."""
    counts: Counter[str] = field(default_factory=Counter)
    """What was checked, and how often."""
    slowest: float = 0.0
    """Longest time from the last kill that an operation saw to its end, in seconds."""

    @property
    def passed(self) -> bool:
        return not (self.lost or self.doubled or self.unnamed or self.hangs or self.failed or self.wrong)


class Judge:
    """Compares. Everything is up and the clients have stopped."""

    def __init__(self, world: World, rest: Rest, clients: list[Client], before: set[str]) -> None:
        """`before`: ids of the operations that were there before the clients began."""
        self._world = world
        self._before = before
        self._rest = rest
        self._clients = clients
        self._asks = [ask for client in clients for ask in client.asks]
        self._operations: dict[str, Json] = {}
        self.verdict = Verdict()

    def judge(self, kills: Kills) -> Verdict:
        """Look at everything, then have the rest reconciled."""
        self._operations = {item["id"]: item for item in self._rest.pages("/operations", limit=1000)}
        self._judge_operations(kills)
        self._judge_times(kills)
        self._judge_creations()
        self._judge_change_lists()
        for client in self._clients:
            self.verdict.wrong += client.wrong
            self.verdict.counts["files read through exports"] += client.reads
        self._judge_leftovers()
        return self.verdict

    # -- operations --------------------------------------------------------------------------------------------------
    def _judge_operations(self, kills: Kills) -> None:
        verdict, known = self.verdict, Counter(ask.operation_id for ask in self._asks if ask.operation_id)
        unanswered = [ask for ask in self._asks if ask.end == "answer lost"]
        for ask in self._asks:
            if ask.operation_id and ask.operation_id not in self._operations:
                verdict.lost.append(f"{ask.kind} {ask.operation_id} of {ask.client} is not in the catalog")
            elif ask.end in {"failed", "refused"}:
                where = verdict.excused if self._is_excused(ask, kills) else verdict.failed
                where.append(f"{ask.kind} {ask.operation_id} of {ask.client} {ask.end}: {ask.error}")
            elif ask.end == "cancelled" and ask.wish != "cancel":
                verdict.failed.append(f"{ask.kind} {ask.operation_id} of {ask.client} was cancelled by nobody")
        verdict.doubled += [
            f"operation {key} was given to {times} requests" for key, times in known.items() if times > 1
        ]
        strangers = [
            f"{item['kind']} {key}: {item['target']}"
            for key, item in self._operations.items()
            if key not in known and key not in self._before and item["requester"] != "snapkeep"
        ]
        if self._rest.keys:
            verdict.doubled += [f"nobody asked for {stranger}" for stranger in strangers]
        else:
            verdict.not_checked.append(
                f"whether operations are doubled by repeated POSTs: this server takes no Idempotency-Key "
                f"({len(unanswered)} answers lost, {len(strangers)} operations without a known request)"
            )
        for key, operation in self._operations.items():
            verdict.ends[operation["kind"], operation["state"]] += 1
            if operation["ended_at"] is None:
                verdict.hangs.append(f"{operation['kind']} {key} is {operation['state']}: {operation['phase']}")
        verdict.counts["operations asked for"] = len(self._asks)

    def _is_excused(self, ask: Ask, kills: Kills) -> bool:
        """A file server that restarts forgets the change lists that it computed: assumed, so the simulator does it."""
        operation = self._operations.get(ask.operation_id)
        if operation is None or ask.kind != "diff" or ask.error.get("code") != "incomplete":
            return False
        began, ended = (datetime.fromisoformat(operation[name]).timestamp() for name in ("created_at", "ended_at"))
        return any(name == SIMULATOR and began < moment < ended for name, moment in kills.moments)

    def _judge_times(self, kills: Kills) -> None:
        for key, moment in kills.last_hit.items():
            ended = self._operations.get(key, {}).get("ended_at")
            if ended is not None:
                self.verdict.slowest = max(self.verdict.slowest, datetime.fromisoformat(ended).timestamp() - moment)

    # -- snapshots ---------------------------------------------------------------------------------------------------
    def _judge_creations(self) -> None:
        """Each create that succeeded made one snapshot, any other none that is left; what was deleted is gone."""
        made = self._made()
        shares = {
            name: self._world.simulator.control("GET", f"/file-servers/{SYSTEM}/shares/{name}") for name in SHARES
        }
        present = {(share, item["name"]) for share, found in shares.items() for item in found["snapshots"]}
        ids = {item["extId"] for found in shares.values() for item in found["snapshots"]}
        deleted = {ask.subject for ask in self._asks if ask.kind == "delete" and ask.end == "succeeded"}
        doomed = {ask.subject for ask in self._asks if ask.kind == "delete"}
        for operation in self._operations.values():
            if operation["kind"] != "create":
                continue
            where = _named(operation["target"])
            times, state = made[where], operation["state"]
            self.verdict.counts["creates compared with the system"] += 1
            if times > 1:
                self.verdict.doubled.append(f"{operation['target']} was made {times} times by create {operation['id']}")
            if state == "succeeded" and times == 0:
                self.verdict.lost.append(
                    f"{operation['target']} was never made, yet create {operation['id']} succeeded"
                )
            if state == "succeeded" and where not in present and operation["result"]["snapshot_id"] not in doomed:
                self.verdict.lost.append(f"{operation['target']} is not on the system, and nobody deleted it")
            if state == "cancelled" and where in present:
                self.verdict.wrong.append(f"{operation['target']} is on the system, though its create was cancelled")
        for snapshot_id in sorted(deleted):
            snapshot = self._rest.get(f"/snapshots/{snapshot_id}")
            self.verdict.counts["deleted snapshots looked for"] += 1
            if snapshot["vendor_id"] in ids:
                self.verdict.wrong.append(f"{snapshot['reference']} is on the system, though its delete succeeded")
            if snapshot["gone_at"] is None:
                self.verdict.wrong.append(f"{snapshot['reference']} is in the catalog, though its delete succeeded")

    def _made(self) -> Counter[tuple[str, str]]:
        """Count the snapshots that the system ever made, by share and name."""
        overview = self._world.simulator.control("GET", "/")
        shares = {share["extId"]: share["name"] for server in overview["file_servers"] for share in server["shares"]}
        tasks = [task for task in self._world.tasks().values() if task["operation"] == CREATE_TASK]
        return Counter(
            (shares[task["arguments"]["share"]], task["arguments"]["name"])
            for task in tasks
            if task["status"] == "SUCCEEDED"
        )

    # -- change lists ------------------------------------------------------------------------------------------------
    def _judge_change_lists(self) -> None:
        for ask in self._asks:
            if ask.kind != "diff" or ask.end != "succeeded" or ask.changed is None:
                continue
            name = f"change list {ask.operation_id}"
            head = self._rest.get(f"/change-lists/{ask.operation_id}")
            entries = self._rest.lines(f"/change-lists/{ask.operation_id}/entries")
            self.verdict.counts["change lists compared with the truth"] += 1
            if head["state"] != "complete" or head["entries"] != len(entries):
                self.verdict.wrong.append(f"{name}: {head['state']}, {len(entries)} of {head['entries']} entries")
            if len(entries) != len({(item["operation"], item["path"]) for item in entries}):
                self.verdict.wrong.append(f"{name} has entries twice")
            if differing := facts_below(ask.client, entries) ^ ask.changed:
                self.verdict.wrong.append(f"{name} differs from the truth: {sorted(differing, key=repr)[:3]}")

    # -- what is left ------------------------------------------------------------------------------------------------
    def _judge_leftovers(self) -> None:
        """What lies on the system and what the catalog says are equal, or `reconcile` names each difference."""
        strays = self._stray_snapshots() | self._stray_accesses()
        findings = self._reconcile(apply=False)
        if findings is None:
            self.verdict.not_checked.append("reconcile: this server has none, so it names nothing")
        named = Counter(item["finding"] for item in findings or ())
        self.verdict.counts["findings of reconcile"] = named.total()
        texts = [str(item) for item in findings or ()]
        for subject, sentence in strays.items():
            if not any(subject in text for text in texts):
                self.verdict.unnamed.append(sentence)
        if findings is None:
            return
        applied = self._reconcile(apply=True) or []
        self.verdict.wrong += [f"reconcile could not mend: {item}" for item in applied if not item["done"]]
        again = self._reconcile(apply=False) or []
        self.verdict.wrong += [f"a second reconcile still finds: {item}" for item in again]
        after = self._stray_snapshots() | self._stray_accesses()
        self.verdict.wrong += [f"after reconcile: {sentence}" for sentence in after.values()]

    def _stray_snapshots(self) -> dict[str, str]:
        """Return snapshots that only the system or only the catalog knows, by their names."""
        known = {
            (item["asset"], item["name"]): item["vendor_id"]
            for item in self._rest.pages("/snapshots", system=SYSTEM, limit=1000)
            if item["asset"] in SHARES
        }
        there = {
            (share, item["name"]): item["extId"]
            for share in SHARES
            for item in self._world.simulator.control("GET", f"/file-servers/{SYSTEM}/shares/{share}")["snapshots"]
        }
        self.verdict.counts["snapshots left, compared with the system"] = len(there)
        strays = {
            name: f"{share}@{name} is on the system, but not in the catalog"
            for share, name in there.keys() - known.keys()
            if _is_ours(name)
        }
        strays |= {
            name: f"{share}@{name} is in the catalog, but not on the system"
            for share, name in known.keys() - there.keys()
        }
        return strays

    def _stray_accesses(self) -> dict[str, str]:
        """Return accesses (host address, share) without an export in force, and the other way round, by share."""
        needed: dict[str, set[str]] = defaultdict(set)
        for export in self._rest.get("/exports")["data"]:
            needed[export["snapshot"].partition("@")[0].partition("/")[2]].add(export["address"])
        opened: dict[str, set[str]] = defaultdict(set)
        for entry in self._world.simulator.control("GET", "/access")["access"]:
            for share in entry["shares"] or ():
                opened[share].add(entry["client"])
        self.verdict.counts["accesses left, compared with exports in force"] = sum(map(len, opened.values()))
        strays = {
            share: f"{share} is open to {sorted(hosts - needed[share])} without an export"
            for share, hosts in opened.items()
            if hosts - needed[share]
        }
        return strays | {
            share: f"{share} is exported to {sorted(hosts - opened[share])}, but not open"
            for share, hosts in needed.items()
            if hosts - opened[share]
        }

    def _reconcile(self, *, apply: bool) -> list[dict[str, Any]] | None:
        """Return the findings; None when the server does not know how."""
        try:
            operation = self._rest.ask("POST", f"/systems/{SYSTEM}/reconcile", str(uuid.uuid4()), {"apply": apply})
        except Refused as refused:
            if refused.status in {404, 405}:
                return None
            raise
        operation = self._rest.wait(operation)
        if operation["state"] != "succeeded":
            self.verdict.failed.append(f"reconcile {operation['id']} {operation['state']}: {operation['error']}")
            return []
        return list(operation["result"]["findings"])


def _named(target: str) -> tuple[str, str]:
    """Return share and name of `files1/share@name`."""
    asset, _, name = target.partition("@")
    return asset.partition("/")[2], name


def _is_ours(name: str) -> bool:
    return is_owned_name(DEFAULT_PREFIX, name) or name.startswith("by client-")
