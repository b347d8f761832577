"""Settings of server and worker: environment variables `SNAPKEEP_*`, or options of `snapkeep serve` and `worker`."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from snapkeep import addresses
from snapkeep.catalog.database_url import parse_url, sqlite_url
from snapkeep.catalog.key_sources import FixedKeys, KeyCommand, KeyFile, KeySource, parse_keys
from snapkeep.model.errors import InvalidInput
from snapkeep.operations.engine import WorkerSettings, engine_url
from snapkeep.operations.host import Host
from snapkeep.operations.open import OperationsSettings
from snapkeep.operations.references import References
from snapkeep.operations.run import Limits
from snapkeep.operations.vault import REQUEST_SECONDS, RETRY_SECONDS, VaultSettings
from snapkeep.plugin.settings import HttpsSettings
from snapkeep.server.datadir import DataDir, default_data_dir
from snapkeep.server.hygiene import forbid_dumps

NAME = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
"""What a worker, a queue or a system may be called."""
_KEY_SETTINGS = ("secret_key_file", "secret_key", "secret_key_command")
_FORGOTTEN = frozenset({"SNAPKEEP_SECRET_KEY", "SNAPKEEP_VAULT_TOKEN"})
"""Environment variables that only the settings read."""


class ProcessSettings(BaseSettings):
    """How a process runs operations. Each field is also an environment variable with the prefix `SNAPKEEP_`."""

    model_config = SettingsConfigDict(env_prefix="SNAPKEEP_", extra="ignore")

    data_dir: Path = Field(
        default_factory=default_data_dir, description="Directory of the catalog, the secret key and the token."
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL that holds the catalog, as postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE. "
        "Default: SQLite in the data directory.",
    )
    database_url_file: Path | None = Field(
        default=None, description="File whose first line is the database URL; it comes before SNAPKEEP_DATABASE_URL."
    )
    database_seconds: float = Field(
        default=30, ge=0, description="How long to wait at the start for a database that cannot be reached, in seconds."
    )
    secret_key_file: Path | None = Field(
        default=None, description="File of the secret keys. Default: secret.key in the data directory."
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="The secret key itself (base64; several are parted by spaces, the first one seals), instead of a "
        "file. The process takes it out of its environment.",
    )
    secret_key_command: str | None = Field(
        default=None,
        min_length=1,
        description="Command that prints the secret keys, instead of a file; run without a shell, for at most 30 "
        "seconds, at the start and every minute.",
    )
    secret_directory: Path | None = Field(
        default=None,
        description="Directory below which references such as file:NAME may name files. Default: secrets in the data "
        "directory.",
    )
    vault_address: str | None = Field(
        default=None, description="Vault for references such as vault:MOUNT/PATH#FIELD, as https://host:8200."
    )
    vault_namespace: str | None = Field(default=None, min_length=1, description="Namespace in Vault.")
    vault_ca_file: Path | None = Field(
        default=None, description="PEM file with the authority of Vault's certificate, instead of the machine's own."
    )
    vault_token_file: Path | None = Field(
        default=None, description="File with the token for Vault; read again each time, so that an agent may renew it."
    )
    vault_token: SecretStr | None = Field(
        default=None, description="The token itself. The process takes it out of its environment."
    )
    vault_role_id: str | None = Field(
        default=None, min_length=1, description="Role id, to log in to Vault by AppRole instead of a token."
    )
    vault_secret_id_file: Path | None = Field(default=None, description="File with the secret id of AppRole.")
    allowed_addresses: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses or networks, separated by commas, to which systems and repositories may lead although "
        "they are link-local, multicast or of a cloud's metadata service.",
    )
    queues: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("default",), description="Queues whose operations are run here, separated by commas."
    )
    log_format: str = Field(default="text", pattern="^(text|json)$", description="Form of the log: text or json.")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severity that is logged."
    )
    operations_per_system: int = Field(
        default=8, ge=1, description="Operations that run at once on one system, in all workers together."
    )
    operations_at_once: int = Field(
        default=64, ge=1, description="Operations of one queue that run at once in one process."
    )
    backups_at_once: int = Field(
        default=2, ge=1, description="Backups and restores from backups that one process runs at once."
    )
    backup_readers: int = Field(default=16, ge=1, le=64, description="Files that a backup reads at once.")
    host_address: str = Field(
        default="127.0.0.1",
        min_length=1,
        max_length=253,
        description="Address under which systems know this machine as a backup host: exports are opened to it.",
    )
    programs: Path | None = Field(
        default=None,
        description="Directory of the programs that may be named to run before and after a snapshot, on this machine. "
        "Default: none are run.",
    )
    operation_seconds: float = Field(
        default=21_600,
        gt=0,
        description="Longest time for one operation, in seconds; while data is moved, from its last sign of life.",
    )
    stall_seconds: float = Field(
        default=1_800, gt=0, description="How long work on a system may be pending without progress, in seconds."
    )
    outage_seconds: float = Field(
        default=300, gt=0, description="How long a system may be out of reach while its work goes on, in seconds."
    )
    call_seconds: float = Field(
        default=120, gt=0, description="Longest time for one call to a plug-in, in seconds: one that hangs ends then."
    )
    takeover_seconds: float = Field(
        default=15, ge=1, description="Without a heartbeat for so long, a worker is held to be dead, in seconds."
    )
    keep_operations_days: float = Field(
        default=90, gt=0, description="How long ended operations are kept to be read, in days."
    )

    @field_validator("allowed_addresses")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @field_validator("queues", "allowed_addresses", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("queues")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [queue for queue in value if not re.match(NAME, queue)]:
            raise ValueError(f"{wrong[0]!r} is no name of a queue: lower-case letters, digits, '-' and '.'")
        return tuple(dict.fromkeys(value))

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Return the settings; what is None is left to environment and default. Raises InvalidInput."""
        try:
            return cls(**{key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            wrong = "; ".join(
                ": ".join([*map(str, item["loc"][:1]), item["msg"]]) for item in error.errors(include_input=False)
            )
            raise InvalidInput(f"The settings are not valid: {wrong}") from None
        finally:
            for name in [name for name in os.environ if name.upper() in _FORGOTTEN]:
                del os.environ[name]  # programs that we start need not know them

    def protect_process(self) -> None:
        """Set what holds for the whole process: no dumps of its memory, and whom it may speak to."""
        forbid_dumps()
        addresses.allow(ipaddress.ip_network(text) for text in self.allowed_addresses)

    @property
    def directory(self) -> DataDir:
        """The data directory."""
        return DataDir(self.data_dir)

    def keys(self) -> KeySource:
        """Return where the secret keys are. Raises InvalidInput when more than one place is named."""
        given = [name for name in _KEY_SETTINGS if getattr(self, name) is not None]
        if len(given) > 1:
            raise InvalidInput(
                f"The secret key is given in several ways: {', '.join(f'SNAPKEEP_{name.upper()}' for name in given)}",
                next_step="Leave one of them.",
            )
        if self.secret_key is not None:
            return FixedKeys(
                parse_keys(self.secret_key.get_secret_value(), "SNAPKEEP_SECRET_KEY"), "SNAPKEEP_SECRET_KEY"
            )
        if self.secret_key_command is not None:
            try:
                return KeyCommand(tuple(shlex.split(self.secret_key_command)))
            except ValueError as error:
                raise InvalidInput(f"SNAPKEEP_SECRET_KEY_COMMAND is no command: {error}") from None
        return KeyFile(self.secret_key_file or self.directory.key)

    def references(self) -> References:
        """Return what references to secrets may name. Raises InvalidInput."""
        return References(directory=self.secret_directory or self.data_dir / "secrets", vault=self._vault())

    def _vault(self) -> VaultSettings | None:
        if self.vault_address is None:
            return None
        try:
            parts = urlsplit(self.vault_address)
            host, port = parts.hostname, parts.port or 8200
        except ValueError:
            parts, host, port = urlsplit(""), None, 0
        if parts.scheme not in {"http", "https"} or not host or parts.path.strip("/") or parts.query or parts.username:
            raise InvalidInput("SNAPKEEP_VAULT_ADDRESS is no address", next_step="Write it as https://host:8200.")
        connection = {
            "host": host,
            "port": port,
            "plain_http": parts.scheme == "http",
            "ca_file": self.vault_ca_file,
            "request_seconds": REQUEST_SECONDS,
            "retry_seconds": RETRY_SECONDS,
        }
        return VaultSettings(
            connection=HttpsSettings.parse({name: value for name, value in connection.items() if value is not None}),
            namespace=self.vault_namespace,
            token=self.vault_token.get_secret_value() if self.vault_token else None,
            token_file=self.vault_token_file,
            role_id=self.vault_role_id,
            secret_id_file=self.vault_secret_id_file,
        )

    def catalog_url(self) -> str:
        """Return the URL of the catalog, password included. Raises InvalidInput."""
        if self.database_url_file is None:
            url = self.database_url
            return url.get_secret_value() if url is not None else sqlite_url(self.directory.catalog)
        try:
            return self.database_url_file.read_text().splitlines()[0].strip()
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise InvalidInput(f"No database URL can be read from {self.database_url_file}: {error}") from error

    def operations(self, name: str, queues: tuple[str, ...], *, alone: bool) -> OperationsSettings:
        """Return how operations are run by the worker `name`."""
        url = parse_url(self.catalog_url())
        return OperationsSettings(
            engine=engine_url(url, self.directory.engine),
            worker=WorkerSettings(
                name=name,
                queues=queues,
                per_system=self.operations_per_system,
                at_once=self.operations_at_once,
                movers_at_once=self.backups_at_once,
                takeover_seconds=self.takeover_seconds,
            ),
            host=Host(
                name=name,
                address=self.host_address,
                directory=self.data_dir.absolute(),
                readers=self.backup_readers,
                programs=self.programs.absolute() if self.programs is not None else None,
                references=self.references(),
            ),
            limits=Limits(
                deadline=self.operation_seconds,
                stall=self.stall_seconds,
                outage=self.outage_seconds,
                call=self.call_seconds,
            ),
            keep_operations=timedelta(days=self.keep_operations_days),
            alone=alone,
        )


class ServerSettings(ProcessSettings):
    """How the server runs."""

    name: str = Field(default="serve", pattern=NAME, description="Name of the server among the workers.")
    host: str = Field(default="127.0.0.1", description="Address to listen on; without TLS, loopback only.")
    port: int = Field(default=8420, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    requests_per_second: float = Field(
        default=50,
        ge=0,
        le=1_000_000,
        description="Requests that one identity may send in a second, or one address without valid token; 0: any "
        "number. The local token has no limit.",
    )
    requests_burst: int = Field(
        default=200, ge=1, le=1_000_000, description="Requests that one identity may send at once, after a pause."
    )
    work: bool = Field(
        default=True, description="Whether the server runs operations itself, or leaves them to workers."
    )
    local_token: bool = Field(
        default=True,
        description="Whether the token in the data directory lets in, with all rights. Have users before without.",
    )
    tls: bool = Field(default=True, description="Whether to serve HTTPS; plain HTTP is for loopback only.")
    tls_names: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names and addresses by which other machines reach the server, separated by commas: for them is "
        "the server's own certificate, besides this machine's name and loopback. The operator's must have them.",
    )
    tls_certificate_file: Path | None = Field(
        default=None,
        description="PEM file with the operator's certificate, and those between it and its authority, instead of one "
        "of the server's own authority.",
    )
    tls_key_file: Path | None = Field(
        default=None, description="PEM file with the key of that certificate. Default: the same file."
    )
    tls_client_ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authorities of clients: only who shows a certificate of theirs may say anything "
        "at all. Everybody needs a token all the same.",
    )

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses of reverse proxies, separated by commas, that are believed who asks (X-Forwarded-For).",
    )

    @field_validator("tls_names", "trusted_proxies", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return cls._split(value)

    @field_validator("tls_names")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in value if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", name)]:
            raise ValueError(f"{wrong[0]!r} is no name of a host and no address")
        return value

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        given = [self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file]
        if self.tls_key_file and not self.tls_certificate_file:
            raise ValueError("tls_key_file needs tls_certificate_file")
        if not self.tls and (any(given) or self.tls_names):
            raise ValueError("without TLS there is no certificate")
        return self


class WorkerProcessSettings(ProcessSettings):
    """How a worker runs."""

    name: str = Field(default="", pattern=NAME, description="Name of the worker: another one for each.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Loopback TCP port for metrics; default: none."
    )
