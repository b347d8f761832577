"""The simulated system as a whole, and one call on it."""

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from snapkeep.simulators.kit import tree
from snapkeep.simulators.kit.accounts import Account, Accounts
from snapkeep.simulators.kit.faults import Fault, Faults
from snapkeep.simulators.kit.requestlog import RequestLog
from snapkeep.simulators.kit.store import Store
from snapkeep.simulators.kit.tasks import Entity, Task, TaskBoard
from snapkeep.simulators.kit.web import Request
from snapkeep.simulators.nutanix_files import content
from snapkeep.simulators.nutanix_files.access import Access
from snapkeep.simulators.nutanix_files.content import Configuration
from snapkeep.simulators.nutanix_files.contents import Contents
from snapkeep.simulators.nutanix_files.errors import TABLE
from snapkeep.simulators.nutanix_files.options import Options
from snapkeep.simulators.nutanix_files.repeats import Repeats
from snapkeep.simulators.nutanix_files.state import State, new_id
from snapkeep.simulators.nutanix_files.volumes import Volumes
from snapkeep.simulators.nutanix_files.work import CREATE_SNAPSHOT, Work

logger = logging.getLogger(__name__)

TICK = 0.25
"""Seconds between looks at the clock: what has an end ends at most so late."""

COOKIE = "NTNX_IGW_SESSION"
API_KEY_HEADER = "X-ntnx-api-key"
VIEW = "View_*"
BACKUP_PERMISSIONS = [
    VIEW,
    *("Create_Mount_Target_Snapshot", "Delete_Mount_Target_Snapshot", "Restore_Mount_Target"),
    *("Clone_Mount_Target", "Compute_Snapshot_Change"),
    *("Create_Partner_Server", "Update_Partner_Server", "Delete_Partner_Server"),
]
"""What Snapkeep needs, and what registers its partner server. The vendor's names of the permissions are assumed."""


class World:
    """Everything that a simulator holds while it runs."""

    def __init__(self, options: Options, configuration: Configuration) -> None:
        data_dir = options.data_dir.resolve()
        self.options = options
        self._configuration = configuration
        self.store = Store(data_dir / "state.sqlite")
        self.accounts = Accounts(data_dir / "accounts.json", API_KEY_HEADER, COOKIE)
        self.faults = Faults()
        self.log = RequestLog()
        self.state = State(self.store, data_dir)
        self.volumes = Volumes(self.state)
        self.contents = Contents(self.state, self.volumes)
        self.tasks = TaskBoard(self.store, self.state.clock)
        self.tasks.generic_code = TABLE["task_failed"].code
        self.work = Work(self.state, self.volumes, self.contents, self.tasks)
        self.access = Access(self.state, self.volumes)
        self.repeats = Repeats(self.state)
        self._watching: asyncio.Task[None] | None = None
        for name, permissions in (("admin", ["*"]), ("backup", BACKUP_PERMISSIONS), ("viewer", [VIEW])):
            self.accounts.ensure(name, permissions)
        for account in configuration.accounts:
            self.accounts.put(account)
        self._provide_content()

    @property
    def data_dir(self) -> Path:
        """Where everything lives."""
        return self.state.data_dir

    def _provide_content(self) -> None:
        """What a fresh data directory gets, and what the configuration adds."""
        with self.store.transaction():
            if not self.state.file_servers and self.options.default_content:
                content.add_default(self.state)
            content.apply(self.state, self._configuration)
            if self.options.partner_server:
                for server in list(self.state.file_servers.values()):
                    wanted = content.NewPartnerServer(name=self.options.partner_server)
                    content.add_partner_server(self.state, server, wanted)
        for fault in self._configuration.faults:
            self.faults.add(msgspec.structs.replace(fault))

    async def reset(self) -> None:
        """Back to the content of a fresh data directory. Accounts stay; faults, settings and files go."""
        await self.end()
        self.faults.clear()
        self.volumes.forget()
        for name in ("volumes", "shares", "access"):
            await asyncio.to_thread(tree.remove, self.data_dir / name)
        with self.store.transaction():
            self.tasks.forget_all()
            self.repeats.forget()
            self.state.clear()
            self._provide_content()
        self.begin()

    def begin(self) -> None:
        """Make directory and state agree after whatever happened, and go on with open tasks."""
        making = self.tasks.open_tasks(CREATE_SNAPSHOT)
        expected = {share: set(snapshots) for share, snapshots in self.state.snapshots.items()}
        for task in making:
            expected.setdefault(task.arguments["share"], set()).add(task.arguments["snapshot"])
        self.volumes.sweep(expected)
        for share in self.state.share_by_id.values():
            self.volumes.provide(share)
        self.contents.begin()
        self.access.begin()
        self.store.on_commit = self._follow
        self.tasks.resume()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def end(self) -> None:
        """Stop all work; what is open goes on at the next start."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.tasks.stop()
        await self.contents.end()

    def _follow(self) -> None:
        """After each change, before anyone can see it: the access directory follows."""
        if self.state.changed:
            self.state.changed = False
            try:
                self.access.update()
            except OSError:
                logger.exception("the access directory could not be updated")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                self.access.tick()
                self.work.remove_gone()
            except OSError:
                logger.exception("the access directory could not be updated")


@dataclass(slots=True)
class Call:
    """One call of the vendor's API, with who calls and which faults act on what it starts."""

    world: World
    request: Request
    parameters: dict[str, str]
    account: Account
    faults: list[Fault] = field(default_factory=list)

    @property
    def state(self) -> State:
        """The state of the simulated system."""
        return self.world.state

    def start_task(self, operation: str, arguments: dict[str, Any], entities: list[Entity]) -> str:
        """Begin asynchronous work; returns the task's id."""
        now = self.state.clock()
        task = Task(
            id=new_id(),
            operation=operation,
            created=now,
            due=now + self.state.settings.task_seconds,
            arguments=arguments,
            entities=entities,
        )
        for fault in self.faults:
            if fault.action == "task":
                task.fault = fault.task
                task.fault_code, task.fault_message = fault.code, fault.message
            elif fault.action == "lying_success":
                task.fault = "lie"
        self.world.tasks.start(task)
        return task.id
