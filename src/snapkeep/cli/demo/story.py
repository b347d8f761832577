"""The story: each step does something and proves it in a way that does not trust the step itself."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from snapkeep.cli import output
from snapkeep.cli.demo import content, foreign, protection
from snapkeep.cli.demo.processes import World, running
from snapkeep.cli.references import Reference
from snapkeep.model.errors import InvalidInput, SnapkeepError

Json = dict[str, Any]
SHARE = Reference("files1", "projects", "")
LEAST_FILES = 1000


class DemoFailed(SnapkeepError):
    """A step did what it should not have."""

    default_next_step = "This is a defect: report it with the output of the demo."


def tell(*, keep: bool, data_dir: Path | None, files: int) -> None:
    """Run the demo; print the table of what was done and how it was proved."""
    if files < LEAST_FILES:
        raise InvalidInput(f"The demo needs at least {LEAST_FILES} files", next_step=f"Use --files {LEAST_FILES}.")
    if data_dir is not None and data_dir.exists() and any(data_dir.iterdir()):
        raise InvalidInput(
            f"The directory {data_dir} is not empty", next_step="Give the demo a new one, or none: it makes its own."
        )
    root = Path(tempfile.mkdtemp(prefix="snapkeep-demo-")) if data_dir is None else data_dir.absolute()
    try:
        with running(root) as world:
            story = Story(world)
            try:
                story.run(files)
            finally:
                story.print_table()
            output.console.print("\nEvery step was proved.", style="bold green")
            if keep:
                _stay(world)
    finally:
        if data_dir is None:
            shutil.rmtree(root, ignore_errors=True)


class Story:
    """The steps in order, and what is to be told of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rest = world.rest
        self._told: list[tuple[str, str, str, float]] = []
        self._done, self._proof = "", ""

    def run(self, files: int) -> None:
        """Tell it, with a progress bar where a person looks on."""
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("Fill the share", lambda: self._fill(files)),
            ("Add the system", self._add),
            ("Discover", self._discover),
            ("First snapshot", self._first),
            ("Change the files", self._change),
            ("Second snapshot", self._second),
            ("Diff", self._diff),
            ("Export", self._export),
            ("Deport", self._deport),
            ("Restore", self._restore),
            ("Delete", self._delete),
            ("Full backup", self._back_up_all),
            ("Change again", self._change_again),
            ("Incremental", self._back_up_changes),
            ("Check", self._check),
            ("Get it back", self._recover),
            ("Policy", self._policy),
            ("Coverage", self._coverage),
        )
        with Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=output.errors,
            transient=True,
            disable=not output.errors.is_terminal,
        ) as bars:
            task = bars.add_task("", total=len(steps))
            for name, step in steps:
                bars.update(task, description=name)
                with self._telling(name):
                    step()
                bars.advance(task)

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        self._done, self._proof = "", ""
        try:
            yield
        except KeyboardInterrupt:
            self._told.append((name, self._done or "-", "interrupted", time.monotonic() - begin))
            raise
        except Exception as error:
            self._told.append((name, self._done or "-", f"FAILED: {error}", time.monotonic() - begin))
            raise
        self._told.append((name, self._done, self._proof, time.monotonic() - begin))

    def print_table(self) -> None:
        """Print what was done."""
        table = Table(title="Snapkeep demo", title_justify="left", header_style="bold")
        for heading in ("Step", "What was done", "How it was proved"):
            table.add_column(heading, overflow="fold")
        table.add_column("Seconds", justify="right")
        for name, done, proof, seconds in self._told:
            style = "red" if proof.startswith("FAILED") else ""
            table.add_row(
                name, Text(output.printable(done)), Text(output.printable(proof), style=style), f"{seconds:.1f}"
            )
        table.add_section()
        table.add_row("Total", "", "", f"{sum(row[3] for row in self._told):.1f}")
        output.print_table(table)

    # -- steps -------------------------------------------------------------------------------------------------------
    def _fill(self, files: int) -> None:
        count, size = content.fill(self._world.share, files)
        _demand(count >= LEAST_FILES, f"only {count} files were found on this machine")
        self._done = f"{count:,} real files ({output.size(size)}) of this machine onto share files1/projects"
        self._before = content.look(self._world.share)
        self._proof = f"every object looked at and its SHA-256 noted: {len(self._before):,} objects"

    def _add(self) -> None:
        simulator = self._world.simulator
        path = "/api/files/v4.0/config/file-servers"
        servers = self._vendor(path)[1]["data"]
        self._server = f"{path}/{next(item['extId'] for item in servers if item['name'] == 'files1')}"
        settings = {
            "host": "127.0.0.1",
            "port": int(simulator["url"].rpartition(":")[2]),
            "ca_file": simulator["ca_file"],
            "file_server": "files1",
            "username": simulator["username"],
            "password": simulator["password"],
            "local_exports": str(self._world.access),
        }
        body = {"name": "files1", "plugin": "nutanix-files", "settings": settings}
        shown = self._rest.request("POST", "/systems", json=body)
        findings = self._rest.request("POST", "/systems/files1/check")["data"]
        _demand(all(item["outcome"] == "ok" for item in findings), f"the check found {findings}")
        _demand(simulator["password"] not in json.dumps(shown), "the password came back")
        self._done = "system files1: HTTPS, certificate verified against the simulator's own CA"
        self._proof = f"check: {len(findings)} of {len(findings)} ok (login, clock, rights, partner server)"

    def _discover(self) -> None:
        result = self._operation(self._rest.request("POST", "/systems/files1/discover"))["result"]
        assets = list(self._rest.pages("/assets", system="files1"))
        nested = [item["name"] for item in assets if item["attributes"].get("nested")]
        listed = self._vendor(f"{self._server}/mount-targets?$limit=100")[1]["data"]
        names = {item["name"] for item in assets if item["kind"] == "share"}
        _demand(names == {item["name"] for item in listed}, "not every share was found")
        self._done = f"{result['assets']} assets; nested share {', '.join(nested)} marked: no snapshots of its own"
        self._proof = f"same {len(listed)} shares as the file server's own list"

    def _first(self) -> None:
        self._one = self._snapshot()

    def _second(self) -> None:
        self._two = self._snapshot()

    def _snapshot(self) -> Json:
        asset = self._rest.asset(SHARE)
        done = self._operation(self._rest.request("POST", f"/assets/{asset['id']}/snapshots", json={}))
        snapshot: Json = self._rest.request("GET", f"/snapshots/{done['result']['snapshot_id']}")
        status, found = self._vendor(self._vendor_path(snapshot))
        _demand(status == 200 and found["data"]["name"] == snapshot["name"], "the file server does not know it")
        self._done = f"snapshot {snapshot['name']}"
        self._proof = "the file server itself shows it under this name"
        return snapshot

    def _change(self) -> None:
        count = content.change(self._world.share)
        self._after = content.look(self._world.share)
        self._truth = content.truth(self._before, self._after)
        self._done = f"{count} things: writes, chmod, renames of files and directories, deletes, links, hostile names"
        self._proof = f"looked at everything again: {len(self._truth):,} facts changed"

    def _diff(self) -> None:
        body = {"base_id": self._one["id"], "new_id": self._two["id"]}
        done = self._operation(self._rest.request("POST", "/change-lists", json=body))
        lines = self._rest.stream(f"/change-lists/{done['result']['change_list']}/entries", [])
        found = {_fact(json.loads(line)) for line in lines}
        wrong = found ^ self._truth
        _demand(not wrong, f"the list differs from the truth in {len(wrong)} entries, for example {sorted(wrong)[:3]}")
        counts = ", ".join(
            f"{value['entries']} {key}" for key, value in done["result"]["summary"]["operations"].items()
        )
        self._done = f"change list of {len(found):,} entries: {counts}"
        self._proof = f"equal to what was really changed, entry by entry: {len(found):,} of {len(self._truth):,}"

    def _export(self) -> None:
        body = {"host": {"name": "this-machine", "address": "127.0.0.1"}}
        _demand(not (self._world.access / "127.0.0.1").exists(), "there was access before the export")
        done = self._operation(self._rest.request("POST", f"/snapshots/{self._two['id']}/exports", json=body))
        path = Path(done["result"]["locations"][0]["path"])
        read = content.look(path)
        _demand(_contents(read) == _contents(self._after), "the export differs from what was snapshotted")
        self._path, self._export_id = path, done["result"]["export_id"]
        self._done = "opened to this machine through the partner server, and read there"
        self._proof = f"no access before; then {len(read):,} objects read, all SHA-256 equal"

    def _deport(self) -> None:
        self._operation(self._rest.request("DELETE", f"/exports/{self._export_id}"))
        _demand(not self._path.exists(), "the export is still readable")
        partners = self._vendor(f"{self._server}/partner-servers")[1]["data"]
        left = (partners[0].get("backupServerConfig") or {}).get("backupClientAccessConfigs") or []
        _demand(not left, f"the partner server still lists {left}")
        self._done = "access taken back"
        self._proof = "path no longer readable; the partner server lists no access"

    def _restore(self) -> None:
        body = {"confirmation": "projects"}
        self._operation(self._rest.request("POST", f"/snapshots/{self._one['id']}/restore", json=body))
        now = content.look(self._world.share)
        _demand(_contents(now) == _contents(self._before), "the share differs from its first state")
        self._done = "share turned back to the first snapshot, confirmed by its name"
        self._proof = f"{len(now):,} objects looked at, all SHA-256 as before the changes"

    def _delete(self) -> None:
        for snapshot in (self._one, self._two):
            self._operation(self._rest.request("DELETE", f"/snapshots/{snapshot['id']}"))
            status, _ = self._vendor(self._vendor_path(snapshot))
            _demand(status == 404, f"the file server answers {status} for a deleted snapshot")
        self._done = "both snapshots"
        self._proof = "the file server answers 404 for each"

    def _back_up_all(self) -> None:
        self._password = token_urlsafe(24)
        body = {"name": "vault", "location": str(self._world.repository), "password": self._password}
        self._rest.request("POST", "/repositories", json=body)
        now = content.look(self._world.share)
        result = self._backup()
        files = len({seen.inode for seen in now.values() if seen.kind == "file"})
        counts = result["counts"]
        _demand(result["mode"] == "full", f"the first backup is {result['mode']}")
        _demand(counts["files_new"] >= files, f"{counts['files_new']} files were backed up, there are {files}")
        read, added = output.size(counts["bytes_read"]), output.size(counts["bytes_added"])
        self._done = f"{counts['files_new']:,} files into a new repository: {read} read, {added} stored"

    def _change_again(self) -> None:
        count = content.change(self._world.share)
        self._last = content.look(self._world.share)
        self._done = f"the same {count} things as before"
        self._proof = f"every object looked at again: {len(self._last):,}"

    def _back_up_changes(self) -> None:
        result = self._backup()
        counts = result["counts"]
        looked_at = counts["files_new"] + counts["files_changed"] + counts["files_unmodified"]
        _demand(result["mode"] == "incremental", f"it is {result['mode']}: {result['reason']}")
        _demand(looked_at < len(self._last) // 4, f"{looked_at} files were looked at")
        read, added = output.size(counts["bytes_read"]), output.size(counts["bytes_added"])
        self._done = f"{looked_at:,} of {len(self._last):,} objects looked at: {read} read, {added} stored"

    def _backup(self) -> Json:
        asset = self._rest.asset(SHARE)
        asked = self._rest.request("POST", f"/assets/{asset['id']}/backups", json={"repository": "vault"})
        result: Json = self._operation(asked)["result"]
        verified = result["verification"]
        _demand(not result["partial"], f"the recovery point is partial: {result['counts']['unreadable_paths'][:3]}")
        _demand(not verified["differing"], verified["verdict"])
        self._point = result["backup_id"]
        self._proof = f"a sample compared with the snapshot: {verified['files']:,} files, all equal"
        return result

    def _check(self) -> None:
        found = self._operation(self._rest.request("POST", "/repositories/vault/check", json={"data": "all"}))["result"]
        _demand(found["sound"], f"the repository is not sound: {found['errors'][:3]}")
        self._done = f"all {found['packs']:,} packs read and compared with their checksums"
        self._proof = foreign.check(self._world.repository, self._password)

    def _recover(self) -> None:
        target = self._world.root / "restored"
        asked = self._rest.request("POST", f"/backups/{self._point}/restore", json={"target": str(target)})
        result = self._operation(asked)["result"]
        back = content.look(target)
        _demand(_whole(back) == _whole(self._last), "what was restored differs from the share")
        self._done = f"{result['files']:,} files of the second recovery point into a directory"
        self._proof = f"{len(back):,} objects looked at: all SHA-256, rights and times as on the share"

    def _policy(self) -> None:
        policy = protection.apply(self._rest)
        items, end = protection.plan(self._rest)
        there = sum(1 for _ in self._rest.pages("/backups")) + sum(1 for _ in self._rest.pages("/snapshots"))
        _demand(policy["text"] == protection.TEXT, "the policy is not kept as it was written")
        _demand(len(items) == there, f"the plan has {len(items)} points, there are {there}")
        _demand(end["deleted"] == 0, "it would delete what it has not made")
        self._done = "policy projects: snapshots every hour, a backup every night; asked what it would delete"
        reasons = sorted({item["reason"] for item in items})
        self._proof = f"nothing of {there} snapshots and recovery points: {'; '.join(reasons)}"

    def _coverage(self) -> None:
        rows = protection.coverage(self._rest)
        mine = rows["files1/projects"]
        _demand(mine["state"] == "ok", f"the share is {mine['state']}")
        _demand(mine["policies"] == ["projects"], f"it is under {mine['policies']}")
        bare = [name for name, row in rows.items() if row["state"] == "unprotected"]
        self._done = (
            f"last good recovery point of files1/projects: {mine['age_seconds']} s old, promised are {mine['rpo']}"
        )
        self._proof = f"and what nobody protects is told: {', '.join(bare)}"

    # -- tools -------------------------------------------------------------------------------------------------------
    def _operation(self, operation: Json) -> Json:
        return self._rest.wait(operation)

    def _vendor_path(self, snapshot: Json) -> str:
        share = self._rest.request("GET", f"/assets/{snapshot['asset_id']}")["vendor_id"]
        return f"{self._server}/mount-targets/{share}/snapshots/{snapshot['vendor_id']}"

    def _vendor(self, path: str) -> tuple[int, Json]:
        """Ask the file server itself, past Snapkeep."""
        simulator = self._world.simulator
        request = urllib.request.Request(  # noqa: S310 - the simulator's own address
            simulator["url"] + path,
            headers={"X-ntnx-api-key": simulator["api_key"]},
        )
        context = ssl.create_default_context(cafile=simulator["ca_file"])
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, {}


def _demand(truth: bool, otherwise: str) -> None:
    if not truth:
        raise DemoFailed(otherwise)


def _fact(entry: Json) -> content.Fact:
    return entry["operation"], _path(entry, "path") or b"", _path(entry, "old_path")


def _path(entry: Json, key: str) -> bytes | None:
    if f"{key}_base64" in entry:
        return base64.b64decode(entry[f"{key}_base64"])
    return entry[key].encode() if key in entry else None


def _contents(tree: content.Tree) -> dict[bytes, tuple[str, int, str]]:
    """What a reader sees; sizes of directories are the file system's own business."""
    return {
        path: (seen.kind, 0 if seen.kind == "directory" else seen.size, seen.content) for path, seen in tree.items()
    }


def _whole(tree: content.Tree) -> dict[bytes, tuple[object, ...]]:
    """What a reader sees, and to whom it belongs, what may be done with it, and when it was changed."""
    return {path: (*seen_, tree[path].metadata, tree[path].mtime_ns) for path, seen_ in _contents(tree).items()}


def _path_hint() -> str:
    """Return how to reach the command where it is not on PATH, as after `make demo`."""
    return "" if shutil.which("snapkeep") else f"  PATH={Path(sys.argv[0]).absolute().parent}:$PATH\n"


def _stay(world: World) -> None:
    """Leave everything running until Ctrl-C or SIGTERM."""
    output.console.print(
        f"\nSimulator and server are left running. In another terminal:\n\n"
        f"{_path_hint()}"
        f"  export SNAPKEEP_DATA_DIR={world.server_dir}\n"
        f"  snapkeep asset list\n"
        f"  snapkeep snapshot create files1/projects --name before\n"
        f"  echo hello > {world.share}/hello.txt\n"
        f"  snapkeep snapshot create files1/projects --name after\n"
        f"  snapkeep snapshot diff files1/projects@after --base before\n"
        f"  snapkeep backup run files1/projects --repository vault\n"
        f"  snapkeep backup list\n"
        f"  snapkeep policy plan projects\n"
        f"  snapkeep coverage\n"
        f"  snapkeep operation list\n\n"
        f"Ctrl-C ends it.",
        markup=False,
        soft_wrap=True,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        output.console.print("Stopping.")
