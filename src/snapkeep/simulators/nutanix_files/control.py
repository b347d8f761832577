"""The control API's routes that know shares and snapshots."""

import asyncio
from importlib import metadata
from typing import Any, Literal

import msgspec

from snapkeep.simulators.kit.control import Control, ControlError, decode
from snapkeep.simulators.kit.web import Request
from snapkeep.simulators.nutanix_files import synthetic
from snapkeep.simulators.nutanix_files.content import (
    NewFileServer,
    NewReplication,
    NewShare,
    add_file_server,
    add_replication,
    add_share,
)
from snapkeep.simulators.nutanix_files.model import FileServer, Share, Snapshot, SnapshotType
from snapkeep.simulators.nutanix_files.settings import changed
from snapkeep.simulators.nutanix_files.state import new_id
from snapkeep.simulators.nutanix_files.world import World

Parameters = dict[str, str]
PREFIX = "/simulator/v1"
API_VERSION = "v4.0"


class SharePatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What an administrator may do to a share; null leaves it."""

    paused: bool | None = None
    state: Literal["ONLINE", "OFFLINE"] | None = None
    status_type: Literal["AVAILABLE", "UNAVAILABLE"] | None = msgspec.field(default=None, name="statusType")


class NewSnapshot(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A snapshot that somebody else made."""

    name: str
    type: SnapshotType = "SSR_SNAPSHOT"


class NewSynthetic(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Many shares without directories."""

    file_server: str
    shares: int = 2000
    snapshots_per_share: int = 10


class NewSyntheticDiff(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Two snapshots with a made-up difference."""

    file_server: str
    share: str
    entries: int = 1_000_000


class NutanixControl(Control):
    """The control API of this simulator."""

    def __init__(self, world: World) -> None:
        super().__init__(PREFIX, world.accounts, world.faults, world.log)
        self._world = world
        share = "/file-servers/{server}/shares/{share}"
        for method, path, handler in (
            ("GET", "/", self._overview),
            ("GET", "/settings", self._settings),
            ("PATCH", "/settings", self._patch_settings),
            ("POST", "/file-servers", self._add_file_server),
            ("POST", "/file-servers/{server}/shares", self._add_share),
            ("GET", share, self._get_share),
            ("PATCH", share, self._patch_share),
            ("POST", share + "/snapshots", self._add_snapshot),
            ("POST", "/replication", self._add_replication),
            ("GET", "/access", self._access),
            ("POST", "/synthetic", self._synthetic),
            ("POST", "/synthetic-diff", self._synthetic_diff),
            ("POST", "/reset", self._reset),
        ):
            self.router.add(method, path, handler)

    async def _overview(self, _request: Request, _parameters: Parameters) -> Any:
        state = self._world.state
        return {
            "versions": {"snapkeep": metadata.version("snapkeep"), "api": API_VERSION},
            "data_dir": str(self._world.data_dir),
            "settings": state.settings,
            "file_servers": [
                {
                    "name": server.name,
                    "extId": server.id,
                    "fqdn": server.fqdn,
                    "shares": [_brief(share) for share in state.shares[server.id].values()],
                }
                for server in state.file_servers.values()
            ],
            "accounts": [
                {"name": account.name, "permissions": account.permissions}
                for account in self._world.accounts.by_name.values()
            ],
        }

    async def _settings(self, _request: Request, _parameters: Parameters) -> Any:
        return self._world.state.settings

    async def _patch_settings(self, request: Request, _parameters: Parameters) -> Any:
        state = self._world.state
        settings = changed(state.settings, decode(request, dict[str, Any]))
        with state.store.transaction():
            state.set_settings(settings)
        return settings

    async def _add_file_server(self, request: Request, _parameters: Parameters) -> Any:
        state = self._world.state
        with state.store.transaction():
            server = add_file_server(state, decode(request, NewFileServer))
        for share in state.shares[server.id].values():
            self._world.volumes.provide(share)
        return {"extId": server.id, "shares": [_brief(share) for share in state.shares[server.id].values()]}

    async def _add_share(self, request: Request, parameters: Parameters) -> Any:
        server = self._server(parameters["server"])
        with self._world.store.transaction():
            share = add_share(self._world.state, server, decode(request, NewShare))
            self._world.volumes.provide(share)
        return await self._get_share(request, {"server": server.name, "share": share.name})

    async def _get_share(self, _request: Request, parameters: Parameters) -> Any:
        share = self._share(parameters["server"], parameters["share"])
        snapshots = self._world.state.visible_snapshots(share)
        return {
            **_brief(share),
            "live": None if share.synthetic else str(self._world.volumes.live(share)),
            "snapshots": [self._snapshot(share, each) for each in snapshots],
        }

    async def _patch_share(self, request: Request, parameters: Parameters) -> Any:
        share = self._share(parameters["server"], parameters["share"])
        patch = decode(request, SharePatch)
        with self._world.store.transaction():
            for name, value in msgspec.structs.asdict(patch).items():
                if value is not None:
                    setattr(share, name, value)
            share.version += 1
            self._world.state.save(share)
        return _brief(share)

    async def _add_snapshot(self, request: Request, parameters: Parameters) -> Any:
        share = self._share(parameters["server"], parameters["share"])
        new = decode(request, NewSnapshot)
        state, volumes = self._world.state, self._world.volumes
        if share.parent is not None:
            raise ControlError(400, "a nested share has no snapshots")
        if any(each.name == new.name for each in state.visible_snapshots(share)):
            raise ControlError(409, f"a snapshot named {new.name} exists")
        if not 1 <= len(new.name) <= 80 or "/" in new.name or new.name in {".", ".."}:
            raise ControlError(400, f"not a name for a snapshot: {new.name!r}")
        identifier, size = new_id(), 0
        moment = state.now()
        if not share.synthetic:
            volume = volumes.volume(share)
            async with volumes.lock(share):
                moment = state.now()
                await asyncio.to_thread(volume.snapshot, identifier)
                _, size = await asyncio.to_thread(volume.totals, identifier)
        with self._world.store.transaction():
            share.last_sequence += 1
            snapshot = Snapshot(
                id=identifier,
                share=share.id,
                name=new.name,
                type=new.type,
                created=moment,
                sequence=share.last_sequence,
                bytes=size,
            )
            state.save(snapshot, share)
        return self._snapshot(share, snapshot)

    async def _add_replication(self, request: Request, _parameters: Parameters) -> Any:
        with self._world.store.transaction():
            made = add_replication(self._world.state, decode(request, NewReplication))
        return {"extIds": [each.id for each in made]}

    async def _access(self, _request: Request, _parameters: Parameters) -> Any:
        return {"access": self._world.access.report()}

    async def _synthetic(self, request: Request, _parameters: Parameters) -> Any:
        new = decode(request, NewSynthetic)
        server = self._server(new.file_server)
        with self._world.store.transaction():
            made = synthetic.make_shares(self._world.state, server, new.shares, new.snapshots_per_share)
        return {"shares": len(made), "snapshots": len(made) * new.snapshots_per_share}

    async def _synthetic_diff(self, request: Request, _parameters: Parameters) -> Any:
        new = decode(request, NewSyntheticDiff)
        share = self._share(new.file_server, new.share)
        with self._world.store.transaction():
            base, newer = synthetic.make_diff(self._world.state, share, new.entries)
        return {"base": base.id, "new": newer.id, "share": share.id}

    async def _reset(self, _request: Request, _parameters: Parameters) -> Any:
        await self._world.reset()
        return {}

    def _server(self, name: str) -> FileServer:
        found = self._world.state.file_server_named(name)
        if found is None:
            raise ControlError(404, f"no file server named {name}")
        return found

    def _share(self, server: str, name: str) -> Share:
        found = self._world.state.share_named(self._server(server).id, name)
        if found is None:
            raise ControlError(404, f"{server} has no share named {name}")
        return found

    def _snapshot(self, share: Share, snapshot: Snapshot) -> dict[str, Any]:
        path = None if share.synthetic else str(self._world.volumes.snapshot_path(share, snapshot))
        return {"name": snapshot.name, "extId": snapshot.id, "type": snapshot.type, "path": path}


def _brief(share: Share) -> dict[str, Any]:
    return {
        "name": share.name,
        "extId": share.id,
        "type": "NESTED" if share.parent else share.type,
        "protocol": share.protocol,
        "secondary": share.secondary,
        "paused": share.paused,
        "state": share.state,
        "statusType": share.status_type,
        "synthetic": share.synthetic,
    }
