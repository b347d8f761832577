"""The clients: each goes round the main job over REST, over and over, and remembers what it asked for and saw."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import traceback
import uuid
from base64 import b64decode
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.chaos.processes import SHARES, World
from tests.chaos.rest import Deadline, GaveUp, Json, LostAnswer, Refused, Rest

from snapkeep.cli.demo.content import Fact, Tree, look, truth

POLL_SECONDS = 0.1
READ_SECONDS = 30.0
DISTURBED = 0.25
"""How often an operation is cancelled or paused at a random moment."""
TRIES = 3
"""How often an operation is asked for; a diff once, for the round can go on without."""
NAMED = 0.3
"""How often a snapshot gets a name of the client's instead of one of ours."""
HOST = "127.0.0.1"


@dataclass(slots=True)
class Ask:
    """One operation that a client asked for, and what became of it in the eyes of the client."""

    client: str
    kind: str
    key: str
    operation_id: str = ""
    wish: str = ""
    """What the client asked of it while it was under way: cancel or pause."""
    end: str = ""
    """State of the operation; "refused", "answer lost" or "gave up" when the client knows none."""
    error: Json = field(default_factory=dict)
    result: Json = field(default_factory=dict)
    subject: str = ""
    """Id of the snapshot or export that it is about."""
    changed: set[Fact] | None = None
    """Of a diff: what the client changed in its directory."""


class _RoundOver(Exception):
    """This round cannot go on: an operation did not succeed."""


class Client(threading.Thread):
    """One client with a directory of its own in a share that it has in common with another."""

    def __init__(self, number: int, seed: int, world: World, rest: Rest, deadline: Deadline, asset: Json) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self.asks: list[Ask] = []
        self.wrong: list[str] = []
        """What was seen that must not be."""
        self.reads = self.rounds = 0
        self.share = share_of(number)
        self._chance = random.Random(f"{seed} {self.name}")
        self._rest = rest
        self._deadline = deadline
        self._asset_id = asset["id"]
        live = Path(world.simulator.control("GET", f"/file-servers/files1/shares/{self.share}")["live"])
        self._files = Files(live / self.name, random.Random(f"{seed} {self.name} files"))

    @property
    def repeats(self) -> int:
        """How often a request had to be sent again."""
        return self._rest.repeats

    def run(self) -> None:
        try:
            while not self._deadline.stopping.is_set():
                try:
                    self._round()
                except _RoundOver:
                    continue
                self.rounds += 1
        except GaveUp as error:
            self.wrong.append(f"{self.name} gave up: {error}")
        except Exception:
            self.wrong.append(f"{self.name} broke:\n{traceback.format_exc()}")
        finally:
            self._rest.close()

    def _round(self) -> None:
        first = self._create()
        before = self._files.look()
        self._files.change()
        after = self._files.look()
        second = self._create()
        body: Json = {"base_id": first, "new_id": second}
        with contextlib.suppress(_RoundOver):
            self._do("diff", "POST", "/change-lists", body, changed=truth(before, after))
        body = {"host": {"name": self.name, "address": HOST}}
        exported = self._do("export", "POST", f"/snapshots/{second}/exports", body, subject=second)
        self._read(Path(exported.result["locations"][0]["path"]) / self.name, after)
        export = exported.result["export_id"]
        self._do("deport", "DELETE", f"/exports/{export}", subject=export)
        for snapshot in (first, second):
            self._do("delete", "DELETE", f"/snapshots/{snapshot}", subject=snapshot)

    def _create(self) -> str:
        name = f"by {self.name}" if self._chance.random() < NAMED else None
        return str(
            self._do("create", "POST", f"/assets/{self._asset_id}/snapshots", {"name": name}).result["snapshot_id"]
        )

    def _do(
        self,
        kind: str,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        subject: str = "",
        changed: set[Fact] | None = None,
    ) -> Ask:
        """Have it done; one that was cancelled on purpose, or failed, is asked for again. Raises _RoundOver."""
        wish = self._chance.choice(("cancel", "pause")) if self._chance.random() < DISTURBED else ""
        moment = self._chance.uniform(0.0, 0.8)
        if wish:
            ask = Ask(self.name, kind, self._key(), wish=wish, subject=subject, changed=changed)
            if self._once(ask, method, path, body, moment).end == "succeeded":
                return ask
        for _ in range(TRIES if kind != "diff" else 1):
            asked = self._once(Ask(self.name, kind, self._key(), subject=subject, changed=changed), method, path, body)
            if asked.end == "succeeded":
                return asked
        raise _RoundOver

    def _once(self, ask: Ask, method: str, path: str, body: Json | None, moment: float = 0.0) -> Ask:
        if self._deadline.stopping.is_set():
            raise _RoundOver
        self.asks.append(ask)
        if body and body.get("name"):  # another one for each request, so that what the system made can be counted
            body = {**body, "name": f"{body['name']} {ask.key[:8]}"}
        try:
            operation = self._rest.ask(method, path, ask.key, body)
            ask.operation_id = operation["id"]
            if ask.wish:
                time.sleep(moment)
                self._rest.tell(operation["id"], ask.wish)
            operation = self._rest.wait(operation)
        except LostAnswer as lost:
            ask.end, ask.error = "answer lost", {"message": str(lost)}
        except Refused as refused:
            ask.end, ask.error = "refused", {"message": str(refused)}
        except GaveUp:
            ask.end = "gave up"
            raise
        else:
            ask.end, ask.result = operation["state"], operation["result"] or {}
            ask.error = operation["error"] or {}
        return ask

    def _read(self, exported: Path, after: Tree) -> None:
        """Read one file through the export; while the simulator restarts, its exports are away for a moment."""
        files = sorted(path for path, seen in after.items() if seen.kind == "file")
        chosen = self._chance.choice(files)
        path = exported / chosen.decode()
        end = time.monotonic() + READ_SECONDS
        while (content := _content(path)) is None and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        self.reads += 1
        if content is None:
            self.wrong.append(f"{self.name} cannot read {path} through its export")
        elif sha256(content).hexdigest() != after[chosen].content:
            self.wrong.append(f"{self.name} reads something else in {path} than was snapshotted")

    def _key(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))


class Files:
    """The client's directory in the live share, which it fills and changes."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self._root = root
        self._chance = chance
        self._count = 0
        for name in ("a", "b/c"):
            (root / name).mkdir(parents=True)
        for _ in range(20):
            self._add()

    def look(self) -> Tree:
        return look(self._root)

    def change(self) -> None:
        """Change some of everything. Deletes come last: `truth` follows objects by their inode."""
        files = sorted(path for path in self._root.rglob("*") if path.is_file())
        self._chance.shuffle(files)
        doomed, grown, moved, closed = files[:3], files[3:6], files[6], files[7]
        for path in grown:
            with path.open("ab") as stream:
                stream.write(self._chance.randbytes(100))
        moved.rename(moved.with_name(f"moved {self._next()}"))
        closed.chmod(closed.stat().st_mode ^ 0o040)
        for _ in range(3):
            self._add()
        for path in doomed:
            path.unlink()

    def _add(self) -> None:
        folder = self._root / self._chance.choice(("a", "b", "b/c"))
        (folder / f"file {self._next()} \u00e9'").write_bytes(self._chance.randbytes(self._chance.randint(1, 5000)))

    def _next(self) -> int:
        self._count += 1
        return self._count


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def share_of(number: int) -> str:
    """Return the share of a client; two clients have one in common, so that their exports share an access."""
    return SHARES[number % len(SHARES)]


def facts_below(directory: str, entries: list[Json]) -> set[Fact]:
    """Return what a change list says of a client's directory, in its own terms; the directory itself left out."""
    prefix = f"{directory}/".encode()
    found: set[Fact] = set()
    for entry in entries:
        path, old = _path(entry, "path"), _path(entry, "old_path")
        if path is not None and path.startswith(prefix):
            found.add((entry["operation"], path[len(prefix) :], old[len(prefix) :] if old is not None else None))
    return found


def _path(entry: Json, name: str) -> bytes | None:
    if f"{name}_base64" in entry:
        return b64decode(entry[f"{name}_base64"])
    return entry[name].encode() if name in entry else None
