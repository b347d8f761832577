"""This machine with ZFS or LVM, whose programs are played on real directories, as a target of the conformance suite."""

from pathlib import Path
from typing import Any, ClassVar

from tests.conformance.linux_host_target import AT_ONCE, PROGRAMS, LinuxHostTarget
from tests.support.host_programs import Programs, lvm, mounts, zfs
from tests.support.host_programs.state import edited

from snapkeep.conformance import Circumstance, Step
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.exports import BackupHost, Export
from snapkeep.model.snapshots import DEFAULT_PREFIX, Snapshot, SnapshotKind
from snapkeep.plugin.roles import Roles


class PlayedTarget(LinuxHostTarget):
    """A host with nothing on it but what is played."""

    kind: ClassVar[str]
    inapplicable: ClassVar = {
        **LinuxHostTarget.inapplicable,
        Capability.DIFF_FILES: "no program tells right what differs",
        Capability.QUIESCE: "mounts and hooks are held, whatever takes the snapshots",
        "paused_asset": "nothing pauses the snapshots of one asset",
        "vanished-while-listed": "one program lists all assets with their snapshots",
    }

    def __enter__(self) -> "PlayedTarget":
        self._play()
        self._made = 0
        self._host = Programs(self._directory / "host", self._directory / "bin")
        self._closing.callback(self._host.close)
        with edited(self._host.file) as state:
            self._prepare(state)
        return self

    def settings(self) -> dict[str, Any]:
        return {"file_systems": [self.kind], "export_directory": str(self._directory / "exports")}

    def _prepare(self, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def _next(self) -> str:
        self._made += 1
        return f"asset-{self._made}"

    async def _named(self, name: str) -> Asset:
        async with self.connect() as roles:
            async for batch in roles.discover.discover():
                for asset in batch.assets:
                    if asset.name == name:
                        return asset
        raise AssertionError(f"discovery does not show {name}")

    def open_live(self, export: Export) -> Path:
        (location,) = export.locations
        assert location.live is not None
        return Path(location.live)

    async def foreign_access(self, asset: Asset, host: BackupHost) -> None:
        """Make a link beside ours, as another program would."""
        place = self._directory / "exports" / "other" / host.address
        place.mkdir(parents=True)
        (place / "link").symlink_to(self.live_path(asset))

    async def arrange(self, circumstance: Circumstance) -> dict[str, Any]:
        if circumstance is Circumstance.WRONG_SYSTEM:
            return {"only": ["/no/such/mount"]}
        return await super().arrange(circumstance)


class ZfsTarget(PlayedTarget):
    """A pool."""

    kind = "zfs"
    programs: ClassVar = {
        **PROGRAMS,
        Step.LIST_SNAPSHOTS: "^zfs list .* filesystem,snapshot",
        Step.CREATE: "^zfs snapshot ",
        Step.DELETE: "^zfs destroy ",
        Step.RESTORE: "^zfs rename ",
        Step.CLONE: "^zfs clone ",
        Step.EXPORT: r"^(ln|rm) .*/exports/",
        Step.READ_SNAPSHOT: "^zfs list .* snapshot ",
        Step.TASK: "^zfs list .* snapshot ",
    }
    inapplicable: ClassVar = {
        name: reason for name, reason in PlayedTarget.inapplicable.items() if name != "limit_snapshots"
    }

    def _prepare(self, state: dict[str, Any]) -> None:
        zfs.create(state, "tank")

    async def fresh_asset(self) -> Asset:
        name = f"tank/{self._next()}"
        with edited(self._host.file) as state:
            zfs.create(state, name)
        return await self._named(name)

    async def unsupported_asset(self) -> Asset:
        with edited(self._host.file) as state:
            zfs.create(state, "tank/locked", mounted=False, keystatus="unavailable")
        return await self._named("tank/locked")

    async def nested_asset(self, asset: Asset, name: str) -> None:
        with edited(self._host.file) as state:
            zfs.create(state, f"{asset.name}/{name}")

    async def pause(self, asset: Asset) -> None:
        """Import the pool read-only."""
        with edited(self._host.file) as state:
            state["read_only"].append("tank")

    async def limit_snapshots(self, count: int) -> None:
        with edited(self._host.file) as state:
            for item in state["datasets"].values():
                item["properties"]["snapshot_limit"] = str(count)

    async def remove_asset(self, asset: Asset) -> None:
        with edited(self._host.file) as state:
            for name in [name for name in state["datasets"] if name == asset.name or name.startswith(asset.name + "@")]:
                del state["datasets"][name]
        path = self.live_path(asset)
        path.rename(path.with_name("gone-" + path.name))

    async def many_assets(self, count: int, snapshots: int = 0) -> dict[str, Any]:
        with edited(self._host.file) as state:
            for number in range(count):
                zfs.create(state, f"tank/many-{number}")
                for each in range(snapshots):
                    zfs.take(state, f"tank/many-{number}@{DEFAULT_PREFIX}{each}", {"snapkeep:request": "x"})
        return {}

    async def add_listed(self, name: str) -> None:
        with edited(self._host.file) as state:
            zfs.create(state, f"tank/{name}")

    async def foreign_snapshot(self, asset: Asset, name: str, kind: SnapshotKind) -> str | None:
        given = f"autosnap_{name}" if kind is SnapshotKind.SCHEDULE else name.encode("ascii", "ignore").decode() + "-"
        given = name if name.isascii() and kind is not SnapshotKind.SCHEDULE else given
        with edited(self._host.file) as state:
            zfs.take(state, f"{asset.name}@{given}", {})
        return given

    async def use(self, roles: Roles, asset: Asset, snapshot: Snapshot) -> None:
        """Hold it (`zfs hold`)."""
        with edited(self._host.file) as state:
            state["datasets"][f"{asset.name}@{snapshot.name}"]["holds"].append("keep")

    def live_path(self, asset: Asset) -> Path:
        return zfs.place(self._host.state(), asset.name)


class LvmTarget(PlayedTarget):
    """A group with a thin pool."""

    kind = "lvm"
    programs: ClassVar = {
        **PROGRAMS,
        Step.LIST_SNAPSHOTS: "^lvs ",
        Step.CREATE: "^lvcreate .*--permission r ",
        Step.DELETE: "^lvremove ",
        Step.RESTORE: "^lvrename ",
        Step.CLONE: "^lvcreate .*--permission rw ",
        Step.EXPORT: r"^(ln|rm) .*/exports/",
        Step.READ_SNAPSHOT: "^lvs ",
        Step.TASK: "^lvs ",
    }
    inapplicable: ClassVar = {
        **PlayedTarget.inapplicable,
        "nested_asset": "nothing lies in a volume",
        "limit_snapshots": AT_ONCE,
    }
    foreign_kinds = frozenset({SnapshotKind.USER})

    def _prepare(self, state: dict[str, Any]) -> None:
        lvm.pool(state, "vg0")

    async def fresh_asset(self) -> Asset:
        name = self._next()
        with edited(self._host.file) as state:
            lvm.create(state, "vg0", name)
        return await self._named(f"vg0/{name}")

    async def unsupported_asset(self) -> Asset:
        with edited(self._host.file) as state:
            lvm.create(state, "vg0", "linear", type="linear", pool="")
        return await self._named("vg0/linear")

    async def nested_asset(self, asset: Asset, name: str) -> None:
        self.require_applicable("nested_asset")

    async def pause(self, asset: Asset) -> None:
        """Forbid changes of the group."""
        with edited(self._host.file) as state:
            state["read_only"].append("vg0")

    async def remove_asset(self, asset: Asset) -> None:
        with edited(self._host.file) as state:
            volume = lvm.find(state, asset.name)
            assert volume is not None
            tag = f"snapkeep.asset={volume['name']}"
            gone = [item for item in state["volumes"].values() if item is volume or tag in item["tags"]]
            for item in gone:
                for mount in [mount for mount in state["mounts"] if mount["source"] == lvm.path(item)]:
                    mounts.unmount(state, mount)
                del state["volumes"][item["uuid"]]

    async def many_assets(self, count: int, snapshots: int = 0) -> dict[str, Any]:
        with edited(self._host.file) as state:
            for number in range(count):
                volume = lvm.create(state, "vg0", f"many-{number}")
                for each in range(snapshots):
                    lvm.create(
                        state, "vg0", f"many-{number}-{DEFAULT_PREFIX}{each}", origin=volume["uuid"], read_only=True,
                        skip=True, active=False, tags=[f"snapkeep.asset=many-{number}", "snapkeep.request=x"],
                    )  # fmt: skip
        return {}

    async def add_listed(self, name: str) -> None:
        with edited(self._host.file) as state:
            lvm.create(state, "vg0", name)

    async def foreign_snapshot(self, asset: Asset, name: str, kind: SnapshotKind) -> str | None:
        given = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in name)
        with edited(self._host.file) as state:
            origin = lvm.find(state, asset.name)
            assert origin is not None
            lvm.create(state, "vg0", given, origin=origin["uuid"], skip=True, active=False)
        return given

    async def use(self, roles: Roles, asset: Asset, snapshot: Snapshot) -> None:
        """Let a virtual machine have it."""
        with edited(self._host.file) as state:
            state["volumes"][snapshot.id].update(active=True, open=True)

    def live_path(self, asset: Asset) -> Path:
        state = self._host.state()
        volume = lvm.find(state, asset.name)
        assert volume is not None
        return lvm.contents(state, volume)
