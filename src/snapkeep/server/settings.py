"""Settings of the server: environment variables `SNAPKEEP_*`, or options of `snapkeep serve`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from snapkeep.server.datadir import default_data_dir


class ServerSettings(BaseSettings):
    """How the server runs. Each field is also an environment variable with the prefix `SNAPKEEP_`."""

    model_config = SettingsConfigDict(env_prefix="SNAPKEEP_", extra="ignore")

    data_dir: Path = Field(
        default_factory=default_data_dir, description="Directory of the catalog, the secret key and the token."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on. Only loopback: there is no TLS yet.")
    port: int = Field(default=8420, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    log_format: str = Field(default="text", pattern="^(text|json)$", description="Form of the log: text or json.")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severity that is logged."
    )
    operation_seconds: float = Field(default=21_600, gt=0, description="Longest time for one operation, in seconds.")
    stall_seconds: float = Field(
        default=1_800, gt=0, description="How long work on a system may be pending without progress, in seconds."
    )
    outage_seconds: float = Field(
        default=300, gt=0, description="How long a system may be out of reach while its work goes on, in seconds."
    )
