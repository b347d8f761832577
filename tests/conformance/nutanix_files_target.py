"""The simulator of Nutanix Files as a target of the conformance suite: its faults in the suite's neutral words."""

import http.client
import itertools
import json
import re
import secrets
import socket
import ssl
import threading
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.conformance.tampering import Headers, Lie, lying

from snapkeep.conformance import Circumstance, Fault, Step, Target
from snapkeep.conformance.target import FAILED_TASK_CODE, FAILED_TASK_TEXT
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.exports import BackupHost, Export, Protocol
from snapkeep.model.snapshots import Snapshot, SnapshotKind
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.nutanix_files import PLUGIN
from snapkeep.simulators.kit.certificates import certificates
from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api

SHARE = "/mount-targets/{}"
ROUTES: dict[Step, tuple[str | None, str]] = {
    Step.ANY: (None, ""),
    Step.LIST_ASSETS: ("GET", "/mount-targets"),
    Step.LIST_SNAPSHOTS: ("GET", SHARE + "/snapshots"),
    Step.CREATE: ("POST", SHARE + "/snapshots"),
    Step.DELETE: ("DELETE", SHARE + "/snapshots/{}"),
    Step.RESTORE: ("POST", SHARE + "/snapshots/{}/$actions/restore"),
    Step.CLONE: ("POST", SHARE + "/$actions/clone"),
    Step.EXPORT: ("PUT", "/partner-servers/{}"),
    Step.READ_SNAPSHOT: ("GET", SHARE + "/snapshots/{}"),
    Step.READ_ACCESS: ("GET", "/partner-servers/{}"),
    Step.START_DIFF: ("POST", SHARE + "/$actions/compute-snapshot-change"),
    Step.READ_DIFF: ("GET", SHARE + "/snapshot-changed-contents/{}"),
    Step.TASK: ("GET", "/config/tasks/{}"),
}
FAULTS: dict[Fault, dict[str, Any]] = {
    Fault.UNAVAILABLE: {"action": "status", "status": 503, "envelope": False},
    Fault.FAILING: {"action": "status", "status": 500},
    Fault.DENIED: {"action": "status", "status": 403},
    Fault.VANISHED: {"action": "status", "status": 404},
    Fault.FORGOTTEN_TASK: {"action": "status", "status": 404},
    Fault.RESET: {"action": "reset"},
    Fault.HANG: {"action": "hang"},
    Fault.RESET_AFTER_EFFECT: {"action": "reset", "after_effect": True},
    Fault.FAILING_AFTER_EFFECT: {"action": "status", "status": 500, "after_effect": True},
    Fault.STALE_VERSION: {"action": "precondition"},
    Fault.HTML: {"action": "garbage", "garbage": "html"},
    Fault.BROKEN_JSON: {"action": "garbage", "garbage": "json"},
    Fault.TRUNCATED: {"action": "truncate"},
    Fault.CHANGED_WORDING: {"action": "reword"},
    Fault.UNKNOWN_WORDS: {"action": "unknown_enum"},
    Fault.STUCK_TASK: {"action": "task", "task": "stuck"},
    Fault.FAILED_TASK: {"action": "task", "task": "fail", "code": FAILED_TASK_CODE, "message": FAILED_TASK_TEXT},
    Fault.LYING_SUCCESS: {"action": "lying_success"},
}
"""What the simulator's own fault kit does."""

TYPES = {
    SnapshotKind.USER: "USER_SNAPSHOT",
    SnapshotKind.SCHEDULE: "SSR_SNAPSHOT",
    SnapshotKind.REPLICATION: "REPLICATION_SNAPSHOT",
}
TOKEN = "x-next-page-token"
KEPT_SECONDS = 30.0
"""A connection that was idle for so long is opened anew: the simulator closes it after 75 seconds."""
QUICK = {"task_seconds": 0.02, "cft_seconds": 0.02}

_numbers = itertools.count(1)


class Stage:
    """One running simulator for many targets, with connections to it that are kept."""

    def __init__(self, simulator: SimulatorProcess) -> None:
        self.simulator = simulator
        self._api = Api(simulator)
        place = urlsplit(simulator.url)
        context = ssl.create_default_context(cafile=simulator.ca_file)
        self._control = http.client.HTTPSConnection(place.hostname or "", place.port, timeout=30, context=context)
        self._used = time.monotonic()
        self._defaults = {**self.control("GET", "/settings"), **QUICK}

    @property
    def api(self) -> Api:
        """A client of the vendor's API, with a new connection: the server closes one that was idle for long."""
        self._api.close()
        return self._api

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the simulator's control API."""
        idle = time.monotonic() - self._used
        if idle > KEPT_SECONDS:
            self._control.close()
        self._control.request(method, f"/simulator/v1{path}", None if body is None else json.dumps(body))
        response = self._control.getresponse()
        self._used = time.monotonic()
        text = response.read().decode()
        assert response.status == 200, f"{method} {path}: {response.status} {text}"
        return json.loads(text)

    def clear(self) -> None:
        """Take back all misbehaviour."""
        self.control("DELETE", "/faults")
        self.control("POST", "/sessions/expire", {"refuse": 0})
        self.control("PATCH", "/settings", self._defaults)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()
        self._control.close()


class NutanixFilesTarget(Target):
    """A file server of its own on a running simulator."""

    plugin = PLUGIN
    longest_pause = 0.02
    impatient: ClassVar = {"request_seconds": 0.3, "retry_seconds": 0.4}
    inapplicable: ClassVar = {
        Capability.QUIESCE: "a file server knows nothing of applications: the hosts that they run on hold them"
    }

    def __init__(self, stage: Stage) -> None:
        self._stage, self._simulator, self._control = stage, stage.simulator, stage.control
        self._lies: list[Lie] = []
        self._closing = ExitStack()
        self._password = secrets.token_urlsafe(12)
        self._key = secrets.token_hex(20)
        self._server = self._long = f"t{next(_numbers)}"
        stage.clear()
        self._account("conformance", ["*"])
        self._control("POST", "/file-servers", {"name": self._server})
        self._partner("snapkeep", "BACKUP")

    def __enter__(self) -> "NutanixFilesTarget":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._closing.close()

    # -- how to reach it -------------------------------------------------------------------------------------------
    def settings(self) -> dict[str, Any]:
        url = urlsplit(self._simulator.url)
        return {
            "host": url.hostname,
            "port": url.port,
            "ca_file": self._simulator.ca_file,
            "file_server": self._server,
            "username": "conformance",
            "password": self._password,
            "local_exports": str(self._simulator.data_dir / "access"),
        }

    def connect(self, **overrides: Any) -> AbstractAsyncContextManager[Roles]:
        return self._connect_by_proxy(overrides) if self._lies else super().connect(**overrides)

    @asynccontextmanager
    async def _connect_by_proxy(self, overrides: dict[str, Any]) -> AsyncIterator[Roles]:
        async with lying(self._simulator.url, self._simulator.ca_file, self._lies) as port:
            place = {"host": "127.0.0.1", "port": port, "plain_http": True, "ca_file": None}
            async with super().connect(**{**overrides, **place}) as roles:
                yield roles

    async def requests_seen(self) -> int:
        return int(self._control("GET", f"/requests?after={10**9}")["count"])

    # -- assets ----------------------------------------------------------------------------------------------------
    async def fresh_asset(self) -> Asset:
        return await self._found(self._share(f"share-{next(_numbers)}"))

    async def unsupported_asset(self) -> Asset:
        parent = await self.fresh_asset()
        return await self._found(self._share(f"{parent.name}-inside", type="NESTED", parent=parent.name))

    async def nested_asset(self, asset: Asset, name: str) -> None:
        self._share(name, type="NESTED", parent=asset.name)

    async def paused_asset(self) -> Asset:
        return await self._found(self._share(f"paused-{next(_numbers)}", paused=True))

    async def pause(self, asset: Asset) -> None:
        self._control("PATCH", f"/file-servers/{self._server}/shares/{asset.name}", {"paused": True})

    async def remove_asset(self, asset: Asset) -> None:
        path = f"/config/file-servers/{asset.parent_id}/mount-targets/{asset.id}"
        api = self._stage.api
        assert api.wait(api.call("DELETE", path))["status"] == "SUCCEEDED"

    async def many_assets(self, count: int, snapshots: int = 0) -> dict[str, Any]:
        self._long = f"m{next(_numbers)}"
        self._control("POST", "/file-servers", {"name": self._long})
        body = {"file_server": self._long, "shares": count, "snapshots_per_share": snapshots}
        self._control("POST", "/synthetic", body)
        return {"file_server": self._long}

    async def add_listed(self, name: str) -> None:
        self._control("POST", f"/file-servers/{self._long}/shares", {"name": name})

    async def foreign_snapshot(self, asset: Asset, name: str, kind: SnapshotKind) -> None:
        path = f"/file-servers/{self._server}/shares/{asset.name}/snapshots"
        self._control("POST", path, {"name": name, "type": TYPES[kind]})

    async def foreign_access(self, asset: Asset, host: BackupHost) -> None:
        self._partner("other-program", "BACKUP")
        api = self._stage.api
        path = f"{api.server(self._server)}/partner-servers"
        (other,) = api.get(path, filter="name eq 'other-program'").data
        entry = {
            "address": {"ipv4": {"value": host.address, "prefixLength": 32}},
            "accessType": "READ_ONLY",
            "mountTargetExtId": asset.id,
            "operationType": "ADD",
        }
        body = {key: other[key] for key in ("name", "vendorName", "partnerType")}
        body["backupServerConfig"] = {"backupClientAccessConfigs": [entry]}
        path = f"{path}/{other['extId']}"
        assert api.wait(api.call("PUT", path, body, headers=api.etag(path)))["status"] == "SUCCEEDED"

    async def limit_snapshots(self, count: int) -> None:
        self._control("PATCH", "/settings", {"max_snapshots_per_share": count})

    async def use(self, roles: Roles, asset: Asset, snapshot: Snapshot) -> None:
        self._control("PATCH", "/settings", {"cft_seconds": 5.0})
        self._stage.api.compute(f"/config/file-servers/{asset.parent_id}/mount-targets/{asset.id}", snapshot.id)

    async def many_changes(self, count: int) -> tuple[Asset, Snapshot, Snapshot]:
        asset = await self.fresh_asset()
        body = {"file_server": self._server, "share": asset.name, "entries": count}
        made = self._control("POST", "/synthetic-diff", body)
        async with super().connect() as roles:
            found = {each.id: each async for batch in roles.discover.discover() for each in batch.snapshots}
        return asset, found[made["base"]], found[made["new"]]

    def live_path(self, asset: Asset) -> Path:
        return Path(self._control("GET", f"/file-servers/{self._server}/shares/{asset.name}")["live"])

    def open_export(self, export: Export) -> Path:
        (location,) = export.locations
        assert location.protocol is Protocol.LOCAL
        return Path(location.path)

    def open_live(self, export: Export) -> Path:
        (location,) = export.locations
        assert location.live is not None
        return Path(location.live)

    # -- misbehaviour ----------------------------------------------------------------------------------------------
    async def suffer(
        self, fault: Fault, step: Step = Step.ANY, *, times: int | None = 1, value: float | None = None
    ) -> None:
        method, route = ROUTES[step]
        if fault is Fault.LYING_SUCCESS and step is Step.CREATE:
            # The plug-in gives what was made some seconds to appear; all but the last of them are over.
            self._lies.append(Lie(method="GET", path="/config/tasks/", answer=_ended_long_ago))
        if fault in FAULTS:
            self._fault(method, route, times, FAULTS[fault])
        elif fault is Fault.RATE_LIMITED:
            limit = {"action": "status", "status": 429, "envelope": False, "retry_after": f"{value:.0f}"}
            self._fault(method, route, times, limit)
        elif fault is Fault.PASSING_ABSENCE:
            self._fault(method, route, times, {"action": "status", "status": 404, "lasting": value})
        elif fault is Fault.EXPIRED_SESSION:
            self._control("POST", "/sessions/expire", {"refuse": 1})
        elif fault in (changes := _settings(value)):
            self._control("PATCH", "/settings", changes[fault])
        else:
            path = re.escape(route).replace(r"\{\}", "[^/]+") + "$"
            lie = _lies(value)[fault]
            lie.method, lie.path, lie.times = method, path, times
            self._lies.append(lie)

    def _fault(self, method: str | None, route: str, times: int | None, action: dict[str, Any]) -> None:
        self._control("POST", "/faults", {"method": method, "route": route or None, "times": times, **action})

    # -- accounts --------------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def account_with(self, rights: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        self._account("exact", rights)
        yield {"username": "exact"}

    # -- circumstances ---------------------------------------------------------------------------------------------
    async def arrange(self, circumstance: Circumstance) -> dict[str, Any]:
        by_key = {"username": None, "password": None}
        if circumstance is Circumstance.READ_ONLY_ACCOUNT:
            self._account("reader", ["View_*"])
        elif circumstance is Circumstance.LEAST_ACCOUNT:
            self._account("least", sorted({right for rights in PLUGIN.permissions.values() for right in rights}))
        elif circumstance is Circumstance.EXPORT_WRONGLY_PREPARED:
            self._partner("doorbell", "NOTIFICATION")
        elif circumstance is Circumstance.CLOCK_AHEAD:
            self._control("PATCH", "/settings", {"clock_skew_seconds": 3600})
        simple: dict[Circumstance, dict[str, Any]] = {
            Circumstance.OTHER_LOGIN: {**by_key, "api_key": self._key},
            Circumstance.WRONG_PASSWORD: {"password": "not-the-password"},
            Circumstance.WRONG_KEY: {**by_key, "api_key": "not-the-key"},
            Circumstance.UNTRUSTED: {"ca_file": None},
            Circumstance.PINNED: {"ca_file": None, "fingerprint": self._simulator.fingerprint},
            Circumstance.PINNED_WRONG: {"ca_file": None, "fingerprint": "0f" * 32},
            Circumstance.WRONG_HOST: {"host": "no-such-host.invalid"},
            Circumstance.WRONG_SYSTEM: {"file_server": "nobody"},
            Circumstance.READ_ONLY_ACCOUNT: {"username": "reader"},
            Circumstance.LEAST_ACCOUNT: {"username": "least"},
            Circumstance.CLOCK_AHEAD: {},
            Circumstance.EXPORT_UNPREPARED: {"partner_server": "never-registered"},
            Circumstance.EXPORT_WRONGLY_PREPARED: {"partner_server": "doorbell"},
            Circumstance.ABSOLUTE_PATHS: {"change_paths": "absolute"},
        }
        if circumstance in simple:
            return simple[circumstance]
        if circumstance is Circumstance.WRONG_PORT:
            with socket.create_server(("127.0.0.1", 0)) as unused:
                return {"port": unused.getsockname()[1]}
        if circumstance is Circumstance.PLAIN_SERVER:
            return {"port": self._plain_server()}
        path = self._simulator.data_dir / f"{circumstance}.pem"
        if circumstance is Circumstance.WRONG_CA:
            path = certificates(self._simulator.data_dir / "other-ca", ["localhost"]).ca
        else:
            path.write_text("This is no certificate.")
        return {"ca_file": str(path)}

    def _plain_server(self) -> int:
        server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self._closing.callback(server.server_close)
        self._closing.callback(thread.join)
        self._closing.callback(server.shutdown)
        return int(server.server_address[1])

    # -- the simulator's own API -----------------------------------------------------------------------------------
    def _account(self, name: str, permissions: Sequence[str]) -> None:
        body = {"name": name, "password": self._password, "api_key": self._key, "permissions": [*permissions]}
        self._control("POST", "/accounts", body)

    def _share(self, name: str, **more: Any) -> str:
        self._control("POST", f"/file-servers/{self._server}/shares", {"name": name, **more})
        return name

    def _partner(self, name: str, kind: str) -> None:
        body = {"name": name, "vendorName": "Snapkeep", "partnerType": kind}
        api = self._stage.api
        made = api.call("POST", f"{api.server(self._server)}/partner-servers", body)
        assert api.wait(made)["status"] == "SUCCEEDED"

    async def _found(self, name: str) -> Asset:
        async with super().connect() as roles:
            async for batch in roles.discover.discover():
                for asset in batch.assets:
                    if asset.name == name:
                        return asset
        raise AssertionError(f"discovery does not show {name}")


def _settings(value: float | None) -> dict[Fault, dict[str, Any]]:
    """What the simulator does by its settings."""
    return {
        Fault.FORGETFUL: {"request_id_scope": "off"},
        Fault.SLOW_TASKS: {"task_seconds": value or QUICK["task_seconds"]},
        Fault.LINGERING: {"delete_lag_seconds": value},
        Fault.LISTED_CHILDREN: {"cft_lists_renamed_children": True},
    }


def _lies(value: float | None) -> dict[Fault, Lie]:
    """What only the proxy does."""
    return {
        Fault.REPEATED_PAGE: Lie(target=lambda target: re.sub(r"((?:%24|\$)page=)\d+", r"\g<1>0", target)),
        Fault.SMALLER_PAGES: Lie(target=lambda target: re.sub(r"((?:%24|\$)limit=)100", r"\g<1>40", target)),
        Fault.WRONG_SHAPE: Lie(answer=_wrong_shape),
        Fault.SHORT_ACCESS: Lie(request=lambda _headers, body: _shorten(body, value or 1.0)),
        Fault.COMPUTING: Lie(request=_without_our_token, answer=lambda h, body, _: _page(h, body, [], "same")),
        Fault.STUCK_TOKEN: Lie(request=_without_our_token, answer=lambda h, body, _: _page(h, body, None, "same")),
        Fault.MISSING_TOKEN: Lie(answer=lambda h, body, _: _page(h, body, None, None)),
        Fault.OTHER_LIST: Lie(answer=_other_list),
    }


def _ended_long_ago(_headers: Headers, body: Any, _asked: Headers) -> Any:
    if ended := body["data"].get("completedTime"):
        body["data"]["completedTime"] = (datetime.fromisoformat(ended) - timedelta(seconds=9)).isoformat()
    return body


def _wrong_shape(_headers: Headers, body: Any, _asked: Headers) -> Any:
    words = ["word", 7, None, ["list"]]
    if isinstance(body.get("data"), dict):
        body["data"] = {key: words if isinstance(value, list) else value for key, value in body["data"].items()}
    else:
        body["data"] = words
    return body


def _shorten(body: Any, seconds: float) -> None:
    body["backupServerConfig"]["expiryInSecs"] = round(seconds)


def _without_our_token(headers: Headers, _body: Any) -> None:
    if headers.get(TOKEN) == "same":
        del headers[TOKEN]


def _page(headers: Headers, body: Any, contents: list[Any] | None, token: str | None) -> Any:
    """A page of a change list that goes on, with other contents (None: as they are), at a token (None: at none)."""
    body["data"]["hasMoreContent"] = True
    if contents is not None:
        body["data"]["changedContents"] = contents
    body["metadata"].pop("extraInfo", None)
    headers.pop(TOKEN, None)
    if token is not None:
        headers[TOKEN] = token
    return body


def _other_list(_headers: Headers, body: Any, _asked: Headers) -> Any:
    body["data"]["snapshotExtId"] = str(uuid.uuid4())
    return body
