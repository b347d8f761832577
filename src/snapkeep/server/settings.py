"""Settings of server and worker: environment variables `SNAPKEEP_*`, or options of `snapkeep serve` and `worker`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from snapkeep.catalog.database import parse_url, sqlite_url
from snapkeep.model.errors import InvalidInput
from snapkeep.operations.engine import WorkerSettings, engine_url
from snapkeep.operations.host import Host
from snapkeep.operations.open import OperationsSettings
from snapkeep.operations.run import Limits
from snapkeep.server.datadir import DataDir, default_data_dir

NAME = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
"""What a worker, a queue or a system may be called."""


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
        default=None, description="File of the secret key. Default: secret.key in the data directory."
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

    @field_validator("queues", mode="before")
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
            wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors(include_input=False))
            raise InvalidInput(f"The settings are not valid: {wrong}") from None

    @property
    def directory(self) -> DataDir:
        """The data directory."""
        return DataDir(self.data_dir)

    @property
    def key_file(self) -> Path:
        """Where the secret key is."""
        return self.secret_key_file or self.directory.key

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
    host: str = Field(default="127.0.0.1", description="Address to listen on. Only loopback: there is no TLS yet.")
    port: int = Field(default=8420, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    work: bool = Field(
        default=True, description="Whether the server runs operations itself, or leaves them to workers."
    )


class WorkerProcessSettings(ProcessSettings):
    """How a worker runs."""

    name: str = Field(default="", pattern=NAME, description="Name of the worker: another one for each.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Loopback TCP port for metrics; default: none."
    )
