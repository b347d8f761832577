"""The system that the suite is run against: how to reach it, what can be done to it, how it can misbehave.

A plug-in's test file makes a subclass. Only what is abstract must be written; for everything else that the target
leaves out, the tests that need it are skipped with the reason. Nothing here names a vendor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.exports import BackupHost, Export
from snapkeep.model.snapshots import Snapshot, SnapshotKind
from snapkeep.plugin.plugin import Plugin
from snapkeep.plugin.roles import Roles


class Step(StrEnum):
    """Which of the plug-in's requests a fault strikes."""

    ANY = "any"
    LIST_ASSETS = "list-assets"
    LIST_SNAPSHOTS = "list-snapshots"
    CREATE = "create"
    DELETE = "delete"
    RESTORE = "restore"
    CLONE = "clone"
    EXPORT = "export"
    """The request that gives or takes access."""
    READ_SNAPSHOT = "read-snapshot"
    """The question whether a snapshot is there."""
    READ_ACCESS = "read-access"
    """The question what is open to whom."""
    START_DIFF = "start-diff"
    READ_DIFF = "read-diff"
    TASK = "task"
    """The question how far a task is."""


class Fault(StrEnum):
    """What goes wrong."""

    UNAVAILABLE = "unavailable"
    """A gateway says that the system cannot serve now (503)."""
    FAILING = "failing"
    """The system fails inside (500), with its reason."""
    RATE_LIMITED = "rate-limited"
    """The system asks to be left alone for `value` seconds."""
    DENIED = "denied"
    """The account lacks the right."""
    VANISHED = "vanished"
    """What was asked about has just been removed by somebody else."""
    PASSING_ABSENCE = "passing-absence"
    """For `value` seconds the system says that there is no such thing, although it is there."""
    RESET = "reset"
    """The connection breaks before the request took effect."""
    HANG = "hang"
    """No answer ever comes."""
    RESET_AFTER_EFFECT = "reset-after-effect"
    """The request takes effect, and then the connection breaks."""
    FAILING_AFTER_EFFECT = "failing-after-effect"
    """The request takes effect, and then the answer is a failure (500)."""
    EXPIRED_SESSION = "expired-session"
    """The system has forgotten that we logged in."""
    STALE_VERSION = "stale-version"
    """Somebody else changed the thing between our look and our change."""
    HTML = "html"
    """A web page comes instead of an answer."""
    BROKEN_JSON = "broken-json"
    """The answer ends in the middle, although it is whole as HTTP."""
    TRUNCATED = "truncated"
    """The connection breaks in the middle of the answer."""
    WRONG_SHAPE = "wrong-shape"
    """The answer is well-formed, but words stand where records should be."""
    CHANGED_WORDING = "changed-wording"
    """All texts of errors are others than usual; their codes are the same."""
    UNKNOWN_WORDS = "unknown-words"
    """Kinds and states are named by words that no document knows."""
    REPEATED_PAGE = "repeated-page"
    """A list gives its first page whatever page is asked for."""
    SMALLER_PAGES = "smaller-pages"
    """A list gives fewer at once than it was asked for."""
    STUCK_TASK = "stuck-task"
    """The work that is begun never ends."""
    FAILED_TASK = "failed-task"
    """The work that is begun fails, with `FAILED_TASK_CODE` and `FAILED_TASK_TEXT`."""
    LYING_SUCCESS = "lying-success"
    """The work that is begun is reported as done, and nothing was done."""
    FORGOTTEN_TASK = "forgotten-task"
    """The system does not know the task any more that it promised."""
    SLOW_TASKS = "slow-tasks"
    """All work takes `value` seconds."""
    FORGETFUL = "forgetful"
    """The system does not recognise a request that it got before."""
    LINGERING = "lingering"
    """What was deleted is still shown for `value` seconds after the work was reported as done."""
    SHORT_ACCESS = "short-access"
    """Access that is granted ends after `value` seconds, whatever was asked for."""
    COMPUTING = "computing"
    """The change list is never ready."""
    STUCK_TOKEN = "stuck-token"  # noqa: S105 - a word
    """The change list goes on for ever at the same place."""
    MISSING_TOKEN = "missing-token"  # noqa: S105 - a word
    """The change list says that it goes on, but not where."""
    OTHER_LIST = "other-list"
    """The change list is one between other snapshots."""
    LISTED_CHILDREN = "listed-children"
    """The rename of a directory is followed by what moved with it."""


class Circumstance(StrEnum):
    """How the plug-in is set up, right or wrong. `Target.arrange` gives the settings for it."""

    OTHER_LOGIN = "other-login"
    """Another way to log in that is right as well (an API key for a password)."""
    WRONG_PASSWORD = "wrong-password"  # noqa: S105 - a word
    WRONG_KEY = "wrong-key"
    UNTRUSTED = "untrusted"
    """The system's certificate is signed by nobody whom the machine knows."""
    PINNED = "pinned"
    PINNED_WRONG = "pinned-wrong"
    WRONG_CA = "wrong-ca"
    """A CA file with another authority than the system's."""
    UNREADABLE_CA = "unreadable-ca"
    WRONG_HOST = "wrong-host"
    WRONG_PORT = "wrong-port"
    PLAIN_SERVER = "plain-server"
    """Something that does not speak TLS answers on the port."""
    WRONG_SYSTEM = "wrong-system"
    """The name of a system that the address does not have."""
    READ_ONLY_ACCOUNT = "read-only-account"
    LEAST_ACCOUNT = "least-account"
    """An account with the rights that the plug-in declares, and no other."""
    CLOCK_AHEAD = "clock-ahead"
    """The system's clock is an hour ahead."""
    EXPORT_UNPREPARED = "export-unprepared"
    """What exports need on the system was not prepared."""
    EXPORT_WRONGLY_PREPARED = "export-wrongly-prepared"
    """It was prepared, but it is of a kind that does not serve."""
    ABSOLUTE_PATHS = "absolute-paths"
    """Change lists name paths in the system's other form."""


FAILED_TASK_CODE = "CONFORMANCE-4711"
FAILED_TASK_TEXT = "The left-handed flange is loose."


INAPPLICABLE = "does not apply: "
"""How the reason of a skip begins when the promise has no meaning for the kind of system."""


def cannot(what: str) -> NoReturn:
    """Say that this target cannot do `what`: the test is skipped with that reason."""
    pytest.skip(f"this target cannot {what}")


class Target(ABC):
    """One system with its plug-in. The suite asks for a fresh one for each test (the fixture `target`)."""

    plugin: ClassVar[Plugin]

    impatient: ClassVar[dict[str, Any]] = {"request_seconds": 0.4, "retry_seconds": 0.8}
    """Settings that end waiting soon, for hostile tests; `impatient_seconds` is the longest that a call may take."""

    impatient_seconds: ClassVar[float] = 3.0

    settle_seconds: ClassVar[float] = 15.0
    """After this time the plug-in must have noticed that a success was a lie."""

    work_seconds: ClassVar[float] = 20.0
    """How long ordinary work on an almost empty asset may take at most."""

    longest_pause: ClassVar[float] = 1.0
    """Polls come at least so often, even if the plug-in asks for a longer pause: short for a simulator."""

    hosts: ClassVar[tuple[BackupHost, BackupHost]] = (
        BackupHost(name="first", address="192.0.2.11"),
        BackupHost(name="second", address="192.0.2.12"),
    )
    """Two backup hosts (RFC 5737 addresses by default)."""

    foreign_kinds: ClassVar[frozenset[SnapshotKind]] = frozenset(
        {SnapshotKind.USER, SnapshotKind.SCHEDULE, SnapshotKind.REPLICATION}
    )
    """Kinds of snapshots that others take of an asset on such a system."""

    failed_code: ClassVar[str] = FAILED_TASK_CODE
    """The code of `FAILED_TASK`: another one where the codes of the system have a form of their own."""

    inapplicable: ClassVar[Mapping[str, str]] = {}
    """What has no meaning for this kind of system, each with the reason: faults, circumstances, capabilities, and
    methods by name.

    Not what the target merely cannot produce: that is `cannot`.
    """

    seldom_needed: ClassVar[Mapping[tuple[Capability, str], str]] = {}
    """Declared rights of a capability without which nothing fails as long as all goes well, each with the reason."""

    # -- must be written -----------------------------------------------------------------------------------------
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the settings that reach the system, as people would give them."""

    @abstractmethod
    async def fresh_asset(self) -> Asset:
        """Make a new asset with all capabilities and nothing on it, and return it as discovery shows it."""

    def require_applicable(self, what: str) -> None:
        """Skip the test, with the reason, when `what` does not apply to this kind of system."""
        if reason := self.inapplicable.get(str(what)):
            pytest.skip(f"{INAPPLICABLE}{what} ({reason})")

    # -- what the suite does with them ---------------------------------------------------------------------------
    def connect(self, **overrides: Any) -> AbstractAsyncContextManager[Roles]:
        """Connect the plug-in. A setting that is overridden with None is left out."""
        data = {key: value for key, value in {**self.settings(), **overrides}.items() if value is not None}
        return self.plugin.connect(self.plugin.settings.parse(data))

    # -- the content ---------------------------------------------------------------------------------------------
    def live_path(self, asset: Asset) -> Path:
        """Return a directory on this machine through which the asset's content can be changed."""
        cannot("change content")

    def open_export(self, export: Export) -> Path:
        """Return the directory on this machine where the export's content is, if it is readable now."""
        cannot("read exports")

    def open_live(self, export: Export) -> Path:
        """Return the directory on this machine where a read-write export shows the live asset."""
        cannot("write to exports")

    # -- what others do on the system ----------------------------------------------------------------------------
    async def unsupported_asset(self) -> Asset:
        """Make an asset that has no capability at all, as discovery shows it."""
        cannot("offer an asset without capabilities")

    async def paused_asset(self) -> Asset:
        """Make an asset on which snapshots are paused, as discovery shows it."""
        self.require_applicable("paused_asset")
        cannot("pause snapshots")

    async def pause(self, asset: Asset) -> None:
        """Pause snapshots of an asset that was discovered before."""
        self.require_applicable("pause")
        cannot("pause snapshots")

    async def remove_asset(self, asset: Asset) -> None:
        """Remove an asset, as an administrator would."""
        cannot("remove an asset")

    async def nested_asset(self, asset: Asset, name: str) -> None:
        """Make an asset of this name inside `asset`."""
        cannot("make an asset inside another")

    async def many_assets(self, count: int, snapshots: int = 0) -> dict[str, Any]:
        """Make `count` assets with so many snapshots each; return settings that reach them and no others."""
        cannot("make very many assets")

    async def add_listed(self, name: str) -> None:
        """Add an asset of this name to those that `many_assets` made."""
        cannot("add an asset to a long list")

    async def foreign_snapshot(self, asset: Asset, name: str, kind: SnapshotKind) -> str | None:
        """Take a snapshot as somebody else would; return how discovery is to name it, where that is not `name`."""
        cannot("take snapshots of other kinds")

    async def foreign_access(self, asset: Asset, host: BackupHost) -> None:
        """Open an asset to a backup host as another program would."""
        cannot("open an asset as another program would")

    async def limit_snapshots(self, count: int) -> None:
        """Let no asset have more than `count` snapshots."""
        self.require_applicable("limit_snapshots")
        cannot("limit the number of snapshots")

    async def use(self, roles: Roles, asset: Asset, snapshot: Snapshot) -> None:
        """Let something use the snapshot for a while, so that it cannot be deleted."""
        cannot("keep a snapshot in use")

    async def quiescent_asset(self) -> Asset:
        """Make an asset that can be quiesced, of which `is_held` tells, and return it as discovery shows it."""
        cannot("offer an asset that can be quiesced")

    async def is_held(self, asset: Asset) -> bool:
        """Say whether such an asset is held at this moment, as it knows itself."""
        cannot("say whether an asset is held")

    async def cut_connections(self) -> None:
        """Break every connection to the system, in a way that it notices."""
        self.require_applicable("cut_connections")
        cannot("cut connections")

    async def many_changes(self, count: int) -> tuple[Asset, Snapshot, Snapshot]:
        """Return an asset and two snapshots with exactly `count` differences."""
        cannot("make very many changes")

    # -- proof and misbehaviour ----------------------------------------------------------------------------------
    async def requests_seen(self) -> int:
        """Return how many requests the system has got so far."""
        cannot("count requests")

    async def arrange(self, circumstance: Circumstance) -> dict[str, Any]:
        """Return settings (None: leave it out) for a circumstance, after preparing the system for it."""
        self.require_applicable(circumstance)
        cannot(f"arrange {circumstance}")

    def rights(self, capability: Capability) -> tuple[str, ...]:
        """Return the declared rights for a capability, without those for what this system does not have."""
        return self.plugin.permissions[capability]

    def account_with(self, rights: Sequence[str]) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Have an account with these rights and no other while the block runs; give settings that log in with it."""
        self.require_applicable("account_with")
        cannot("make accounts with single rights")

    async def suffer(
        self, fault: Fault, step: Step = Step.ANY, *, times: int | None = 1, value: float | None = None
    ) -> None:
        """Let the system misbehave at the next `times` requests of `step` (None: until the end of the test).

        Connections that were opened before need not notice.
        """
        self.require_applicable(fault)
        cannot(f"produce {fault}")
