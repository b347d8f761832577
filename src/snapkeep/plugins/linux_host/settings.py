"""Settings of a Linux host: this machine, or one that is reached by SSH."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from snapkeep.plugin.settings import HostName, SystemSettings

FileSystemKind = Literal["btrfs", "zfs", "lvm"]
NfsServer = Literal["none", "exportfs"]


Word = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Hook(BaseModel):
    """How an application is brought to a consistent point, and let go: each a program with its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    freeze: tuple[Word, ...] = Field(min_length=1, max_length=50)
    thaw: tuple[Word, ...] = Field(min_length=1, max_length=50)

    @field_validator("freeze", "thaw")
    @classmethod
    def _check(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if not words[0].startswith("/"):
            raise ValueError("the program must be given by its absolute path")
        return words


class LinuxHostSettings(SystemSettings):
    """One Linux host with file systems that can take snapshots. Without `host` it is the machine of the worker."""

    identity: ClassVar[frozenset[str]] = frozenset({"host"})
    access: ClassVar[frozenset[str]] = frozenset({"nfs", "nfs_address", "nfs_port", "export_directory"})

    host: HostName | None = Field(
        default=None, description="Name or address of the host, reached by SSH; without it, the machine of the worker."
    )
    port: int = Field(default=22, ge=1, le=65535, description="TCP port of the SSH server.")
    username: str | None = Field(
        default=None, min_length=1, description="User on the host; without it, the one who runs the worker."
    )
    private_key: SecretStr | None = Field(
        default=None, description="Private key of that user (OpenSSH's form); without it, those of the worker's user."
    )
    passphrase: SecretStr | None = Field(default=None, description="Passphrase of the private key.")
    password: SecretStr | None = Field(default=None, description="Password of that user, instead of a key.")
    host_key: str | None = Field(
        default=None, description="Public key that the host must prove to have, such as: ssh-ed25519 AAAA..."
    )
    known_hosts: Path | None = Field(
        default=None, description="File of known hosts to trust, instead of the worker's ~/.ssh/known_hosts."
    )
    jump: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._@:,\[\]-]{1,1000}$",
        description="Other hosts on the way: [user@]host[:port], parted by commas.",
    )
    sudo: bool = Field(
        default=False, description="Run what needs root by sudo, which must ask for no password. Else the user is root."
    )
    command_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="Longest time for one command, in seconds; of a diff, longest silence."
    )
    file_systems: tuple[FileSystemKind, ...] = Field(
        default=(),
        description="Kinds to look for: btrfs, zfs, lvm (thin volumes); without them, those that the host has.",
    )
    only: tuple[Path, ...] = Field(
        default=(),
        description="Mount points of the file systems to look at, of LVM /dev/GROUP; without them, all that there is.",
    )
    export_directory: Path = Field(
        default=Path("/run/snapkeep"),
        description="Directory on the host where snapshots of ZFS and LVM are shown while they are exported.",
    )
    hooks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")], Hook] = Field(
        default={},
        description='Applications to quiesce, by name: {"NAME": {"freeze": ["/PROGRAM", "ARGUMENT"], "thaw": [...]}}. '
        "They run on the host as root.",
    )
    nfs: NfsServer = Field(
        default="none",
        description="What serves exports to other machines: exportfs (the host's own NFS server), or none.",
    )
    nfs_address: HostName | None = Field(
        default=None, description="Name or address under which backup hosts mount; without it, `host`."
    )
    nfs_port: int = Field(default=2049, ge=1, le=65535, description="TCP port of the NFS server.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.host is None:
            given = {"username", "private_key", "passphrase", "password", "host_key", "known_hosts", "jump"}
            if unused := sorted(given & self.model_fields_set):
                raise ValueError(f"{', '.join(unused)}: only for a host that is reached by SSH (setting host)")
        if self.host_key and self.known_hosts:
            raise ValueError("give host_key or known_hosts, not both")
        if self.password and self.private_key:
            raise ValueError("give password or private_key, not both")
        return self
