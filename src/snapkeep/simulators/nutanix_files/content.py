"""File servers and shares as the control API and the configuration file describe them, and the default ones."""

from typing import Any, Literal

import msgspec

from snapkeep.simulators.kit.accounts import Account
from snapkeep.simulators.kit.faults import Fault
from snapkeep.simulators.nutanix_files.model import (
    FileServer,
    MountTargetType,
    Partner,
    Protocol,
    Replication,
    Share,
)
from snapkeep.simulators.nutanix_files.settings import changed
from snapkeep.simulators.nutanix_files.state import State, new_id


class ContentError(ValueError):
    """The description makes no sense; the text says why."""


class NewShare(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A share to make. NESTED needs ``parent`` (a name); ``path`` is the folder in it (default: the name)."""

    name: str
    type: MountTargetType | Literal["NESTED"] = "STANDARD"
    protocol: Protocol = "NFS"
    secondary: list[Protocol] = []
    parent: str | None = None
    path: str | None = None
    paused: bool = False
    state: Literal["ONLINE", "OFFLINE"] = "ONLINE"
    status_type: Literal["AVAILABLE", "UNAVAILABLE"] = msgspec.field(default="AVAILABLE", name="statusType")


class NewPartnerServer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A partner server to register, as the administrator of a file server would."""

    name: str
    vendor_name: str = "Snapkeep"
    partner_type: Literal["NOTIFICATION", "BACKUP", "MIGRATION"] = "BACKUP"


class NewFileServer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A file server to make, with its shares and partner servers."""

    name: str
    fqdn: str | None = None
    shares: list[NewShare] = []
    partner_servers: list[NewPartnerServer] = []


class NewReplication(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """SmartDR policies and jobs in the vendor's JSON; ``extId`` is made up where it is missing."""

    policies: list[dict[str, Any]] = []
    jobs: list[dict[str, Any]] = []


class Configuration(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The file of ``--config``. What exists already is left alone; settings always take effect."""

    settings: dict[str, Any] = {}
    file_servers: list[NewFileServer] = []
    accounts: list[Account] = []
    faults: list[Fault] = []
    replication: NewReplication = msgspec.field(default_factory=NewReplication)


DEFAULT = (
    NewFileServer(
        name="files1",
        fqdn="files1.example.com",
        shares=[
            NewShare(name="projects"),
            NewShare(name="homes", type="DISTRIBUTED", protocol="SMB", secondary=["NFS"]),
            NewShare(name="archive", type="NESTED", parent="projects"),
        ],
    ),
    NewFileServer(name="files2", fqdn="files2.example.com", shares=[NewShare(name="media")]),
)


def apply(state: State, configuration: Configuration) -> None:
    """Make what is missing, and set the settings. In the caller's transaction.

    Raises :class:`ContentError` when it makes no sense.
    """
    if configuration.settings:
        try:
            state.set_settings(changed(state.settings, configuration.settings))
        except ValueError as error:
            raise ContentError(f"settings: {error}") from None
    for server in configuration.file_servers:
        add_file_server(state, server, existing=True)
    if not state.replications:
        add_replication(state, configuration.replication)


def add_default(state: State) -> None:
    """The content of a fresh data directory. In the caller's transaction."""
    for server in DEFAULT:
        add_file_server(state, server, existing=True)


def add_file_server(state: State, new: NewFileServer, *, existing: bool = False) -> FileServer:
    """Make a file server; with ``existing`` an existing one only gets the shares that it lacks."""
    found = state.file_server_named(new.name)
    if found is not None and not existing:
        raise ContentError(f"a file server named {new.name} exists")
    if not 1 <= len(new.name) <= 15 or not all(c.isascii() and (c.isalnum() or c == "-") for c in new.name):
        raise ContentError(f"the name of a file server has 1 to 15 letters, digits and '-': {new.name!r}")
    server = found or FileServer(id=new_id(), name=new.name, fqdn=new.fqdn or f"{new.name}.example.com")
    state.save(server)
    for share in new.shares:
        if state.share_named(server.id, share.name) is None:
            add_share(state, server, share)
    for partner in new.partner_servers:
        add_partner_server(state, server, partner)
    return server


def add_partner_server(state: State, server: FileServer, new: NewPartnerServer) -> None:
    """Register a partner server, unless the file server has one of this name."""
    if not 1 <= len(new.name) <= 64:
        raise ContentError(f"the name of a partner server has 1 to 64 characters: {new.name!r}")
    if any(each.file_server == server.id and each.name == new.name for each in state.partners.values()):
        return
    partner = Partner(
        id=new_id(),
        file_server=server.id,
        name=new.name,
        vendor_name=new.vendor_name,
        partner_type=new.partner_type,
        expiry_in_secs=state.settings.partner_expiry_default,
    )
    state.save(partner)


def add_share(state: State, server: FileServer, new: NewShare) -> Share:
    """Make a share's record; its directory is made by ``Volumes.provide``."""
    if state.share_named(server.id, new.name) is not None:
        raise ContentError(f"{server.name} has a share named {new.name}")
    if not 1 <= len(new.name) <= 80 or "/" in new.name or "\0" in new.name or new.name in {".", ".."}:
        raise ContentError(f"not a name for a share: {new.name!r}")
    share = Share(
        id=new_id(),
        file_server=server.id,
        name=new.name,
        protocol=new.protocol,
        secondary=new.secondary,
        paused=new.paused,
        state=new.state,
        status_type=new.status_type,
    )
    if new.type != "NESTED" and new.parent is None:
        share.type = new.type
    else:
        parent = state.share_named(server.id, new.parent or "")
        if parent is None or parent.parent is not None:
            raise ContentError(f"{new.name}: no top-level share named {new.parent!r}")
        folder = (new.path or new.name).strip("/")
        if ".." in folder.split("/"):
            raise ContentError(f"{new.name}: bad path {new.path!r}")
        share.parent, share.folder, share.type = parent.id, folder, parent.type
    state.save(share)
    return share


def add_replication(state: State, new: NewReplication) -> list[Replication]:
    """Keep policies and jobs."""
    kinds: tuple[tuple[Literal["policy", "job"], list[dict[str, Any]]], ...] = (
        ("policy", new.policies),
        ("job", new.jobs),
    )
    made = [
        Replication(id=str(body.get("extId") or new_id()), kind=kind, body=body)
        for kind, bodies in kinds
        for body in bodies
    ]
    state.save(*made)
    return made
