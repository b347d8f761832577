"""A plain client of the simulated API, for tests and rehearsals. Standard library only; not for production."""

import base64
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from snapkeep.simulators.kit.process import SimulatorProcess

FILES = "/api/files/v4.0"
TASKS = "/api/prism/v4.0/config/tasks"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        """The whole body."""
        return json.loads(self.raw)

    @property
    def data(self) -> Any:
        """The ``data`` of the envelope."""
        return self.json["data"]

    @property
    def code(self) -> str:
        """The code of the first AppMessage."""
        return str(self.data["error"][0]["code"])

    @property
    def complaints(self) -> list[str]:
        """The attributes that a SchemaValidationError complains about."""
        return [each["attributePath"] for each in self.data["error"]["validationErrorMessages"]]


class Api:
    """One account's view of a simulator. Header names of replies are lower case."""

    def __init__(
        self, simulator: SimulatorProcess, *, username: str = "", password: str = "", api_key: str = ""
    ) -> None:
        self._simulator = simulator
        name, secret = username or simulator.username, password or simulator.password
        basic = base64.b64encode(f"{name}:{secret}".encode()).decode()
        self.credentials = {"X-ntnx-api-key": api_key} if api_key else {"Authorization": f"Basic {basic}"}
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30,
    ) -> Reply:
        """One request; ``path`` may leave out the API's prefix. Raises what http.client raises."""
        full = quote(path if path.startswith("/api/") else FILES + path, safe="/$:=")
        if query:
            full += "?" + urlencode(query)
        connection = self._connection or self._connect(timeout)
        self._connection = None
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, full, data, {**self.credentials, **(headers or {})})
            response = connection.getresponse()
            with response:
                raw = response.read()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, raw)

    def get(self, path: str, **query: Any) -> Reply:
        """GET with ``$``-parameters: ``get("/x", limit=3)`` asks for ``$limit=3``."""
        return self.call("GET", path, query={f"${name}": value for name, value in query.items()})

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def server(self, name: str = "files1") -> str:
        """The path of a file server."""
        found = self.get("/config/file-servers", filter=f"name eq '{name}'").data
        return f"/config/file-servers/{found[0]['extId']}"

    def share(self, name: str = "projects", server: str = "files1") -> str:
        """The path of a share."""
        above = self.server(server)
        found = self.get(f"{above}/mount-targets", filter=f"name eq '{name}'").data
        return f"{above}/mount-targets/{found[0]['extId']}"

    def wait(self, reply: Reply, seconds: float = 20) -> dict[str, Any]:
        """Wait for the end of a reply's task; returns the task."""
        if reply.status != 202:
            raise AssertionError(f"202 was expected: {reply.status} {reply.raw!r}")
        end = time.monotonic() + seconds
        while True:
            task: dict[str, Any] = self.call("GET", f"{TASKS}/{reply.data['extId']}").data
            if task["status"] in {"SUCCEEDED", "FAILED"}:
                return task
            if time.monotonic() > end:
                raise AssertionError(f"the task did not end: {task}")
            time.sleep(0.01)

    def snapshot(self, share: str, name: str) -> str:
        """Make a snapshot; returns its extId."""
        task = self.wait(self.call("POST", f"{share}/snapshots", {"name": name}))
        made: str = next(each["extId"] for each in task["entitiesAffected"] if "snapshot" in each["rel"])
        return made

    def etag(self, path: str) -> dict[str, str]:
        """``If-Match`` of what lies at the path."""
        return {"If-Match": self.call("GET", path).headers["etag"]}

    def compute(self, share: str, snapshot: str, base: str | None = None, **more: Any) -> str:
        """Begin to compute changed contents; returns their path."""
        body = {"snapshotExtId": snapshot, "baseSnapshotExtId": base, **more}
        reply = self.call("POST", f"{share}/$actions/compute-snapshot-change", body)
        if reply.status != 202:
            raise AssertionError(f"202 was expected: {reply.status} {reply.raw!r}")
        return f"{share}/snapshot-changed-contents/{reply.data[0]['argumentsMap']['extId']}"

    def pages(self, content: str) -> list[list[dict[str, Any]]]:
        """All pages that have entries."""
        pages: list[list[dict[str, Any]]] = []
        headers: dict[str, str] = {}
        while True:
            reply = self.call("GET", content, headers=headers)
            if reply.status != 200:
                raise AssertionError(f"200 was expected: {reply.status} {reply.raw!r}")
            if reply.data["changedContents"]:
                pages.append(reply.data["changedContents"])
            elif reply.data["hasMoreContent"]:
                time.sleep(0.01)
            if not reply.data["hasMoreContent"]:
                return pages
            headers = {"X-Next-Page-Token": reply.headers["x-next-page-token"]}

    def changes(self, share: str, snapshot: str, base: str | None = None, **more: Any) -> list[dict[str, Any]]:
        """All changed entries between two snapshots."""
        pages = self.pages(self.compute(share, snapshot, base, **more))
        return [entry for page in pages for entry in page]

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        url = urlsplit(self._simulator.url)
        host, port = url.hostname or "", url.port or 0
        if url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout)
        context = ssl.create_default_context(cafile=self._simulator.ca_file)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
